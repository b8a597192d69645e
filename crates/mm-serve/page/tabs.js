// The tab list: arrow keys, Home and End move between tabs; the address keeps the open one.

/** The tabs of the panels that the server serves. */
export class Tabs {
  #list;
  #tabs = [];

  /** @param {HTMLElement} list The element with `role=tablist`. */
  constructor(list) {
    this.#list = list;
    list.addEventListener("click", (event) => {
      const tab = event.target.closest("[role=tab]");
      if (tab) this.open(panelId(tab));
    });
    list.addEventListener("keydown", (event) => this.#move(event));
    addEventListener("hashchange", () => this.open(location.hash.slice(1)));
  }

  /** The open panel, or undefined before `show`. */
  get panel() {
    const tab = this.#tabs.find((tab) => tab.ariaSelected === "true");
    return tab && document.getElementById(panelId(tab));
  }

  /** Shows the tabs of these panels, and opens the one of the address or the first. */
  show(ids) {
    const all = [...this.#list.querySelectorAll("[role=tab]")];
    this.#tabs = all.filter((tab) => ids.includes(panelId(tab)));
    for (const tab of all) tab.hidden = !this.#tabs.includes(tab);
    if (!this.open(location.hash.slice(1)) && ids.length > 0) this.open(ids[0]);
  }

  /** Opens a panel; returns false where the server does not serve it. */
  open(id) {
    const opened = this.#tabs.find((tab) => panelId(tab) === id);
    if (!opened) return false;
    for (const tab of this.#tabs) {
      const isOpen = tab === opened;
      tab.ariaSelected = String(isOpen);
      tab.tabIndex = isOpen ? 0 : -1;
      document.getElementById(panelId(tab)).hidden = !isOpen;
    }
    opened.scrollIntoView({ block: "nearest", inline: "nearest" });
    document.title = `${opened.textContent} \u00b7 mm`;
    history.replaceState(null, "", `#${id}`);
    return true;
  }

  #move(event) {
    const last = this.#tabs.length - 1;
    const current = this.#tabs.indexOf(document.activeElement);
    const targets = {
      ArrowRight: current === last ? 0 : current + 1,
      ArrowLeft: current === 0 ? last : current - 1,
      Home: 0,
      End: last,
    };
    const target = targets[event.key];
    if (target === undefined || current === -1) return;
    event.preventDefault();
    this.open(panelId(this.#tabs[target]));
    this.#tabs[target].focus();
  }
}

function panelId(tab) {
  return tab.getAttribute("aria-controls");
}
