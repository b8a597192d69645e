// Light or dark. A classic script in <head>: a module runs after the first paint, which would flash.
(() => {
  const NAME = "mm-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // storage is off in some private windows
    }
  };
  const store = (theme) => {
    try {
      localStorage.setItem(NAME, theme);
    } catch {
      // The choice then holds until the page is closed.
    }
  };
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

  const theme = stored();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store(root.dataset.theme);
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
