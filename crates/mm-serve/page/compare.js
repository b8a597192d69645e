// An image before and after, with a handle between the two.

import { el } from "./dom.js";

/**
 * Two images of one size, one over the other. The range moves the border between them, by pointer or keys.
 *
 * @param {string} before URL of an image.
 * @param {string} after URL of an image.
 * @param {string} text The alternative text of the second.
 */
export function compare(before, after, text) {
  const range = el("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50" });
  range.setAttribute("aria-label", "Share of the original that is shown, in percent");
  const element = el(
    "div",
    { className: "compare" },
    el("img", { src: after, alt: text }),
    el("img", { src: before, alt: "The original", className: "before" }),
    el("span", { className: "compare-handle", "aria-hidden": "true" }),
    range,
  );
  const show = () => element.style.setProperty("--border", `${range.value}%`);
  range.addEventListener("input", show);
  show();
  return element;
}
