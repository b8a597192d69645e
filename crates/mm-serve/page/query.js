// The parts of a search: texts, images and items of the index, each with a weight.

import { button, el } from "./dom.js";

/**
 * A part of a search.
 *
 * @typedef {Object} Part
 * @property {string} name What the page shows.
 * @property {{text?: string, image?: string, id?: string|number}} query What the server receives.
 * @property {(img: HTMLImageElement) => void} [show] Shows the part's picture.
 * @property {number} weight At least 0.
 * @property {boolean} isNegative Subtracted from the others.
 */

/** The list of parts beside the text box. */
export class QueryParts {
  #list;
  #onChange;
  #parts = [];

  /**
   * @param {HTMLElement} list
   * @param {() => void} onChange Called when the user changes a part.
   */
  constructor(list, onChange) {
    this.#list = list;
    this.#onChange = onChange;
  }

  /** Adds a part of weight 1. */
  add({ name, query, show, isNegative = false }) {
    this.#parts.push({ name, query, show, isNegative, weight: 1 });
    this.#draw();
  }

  /** Removes all parts. */
  clear() {
    this.#parts = [];
    this.#draw();
  }

  /** The `queries` of a request. */
  get queries() {
    return this.#parts.map(({ query, weight, isNegative }) => ({
      ...query,
      weight: isNegative ? -weight : weight,
    }));
  }

  #draw() {
    this.#list.replaceChildren(...this.#parts.map((part) => this.#row(part)));
    this.#list.hidden = this.#parts.length === 0;
  }

  #row(part) {
    const sign = button("", () => {
      part.isNegative = !part.isNegative;
      showSign();
      this.#onChange();
    });
    sign.className = "sign";
    const row = el("li", { className: "part" }, sign);
    const showSign = () => {
      sign.textContent = part.isNegative ? "\u2212" : "+";
      sign.ariaLabel = part.isNegative ? `Without ${part.name}` : `With ${part.name}`;
      sign.title = part.isNegative ? "Subtracted: press to add" : "Added: press to subtract";
      row.classList.toggle("negative", part.isNegative);
    };
    showSign();
    if (part.show) {
      const img = el("img", { alt: "" });
      part.show(img);
      row.append(img);
    }
    row.append(el("span", { className: "part-name", title: part.name }, part.name), this.#weight(part));
    row.append(
      button("\u00d7", () => this.#remove(part), {
        className: "remove",
        "aria-label": `Remove ${part.name}`,
      }),
    );
    return row;
  }

  #weight(part) {
    const input = el("input", { type: "number", min: "0", max: "10", step: "0.1", value: part.weight });
    input.setAttribute("aria-label", `Weight of ${part.name}`);
    input.title = "Weight";
    input.addEventListener("change", () => {
      if (!input.validity.valid || input.value === "") return;
      part.weight = input.valueAsNumber;
      this.#onChange();
    });
    return input;
  }

  #remove(part) {
    this.#parts = this.#parts.filter((other) => other !== part);
    this.#draw();
    this.#onChange();
  }
}
