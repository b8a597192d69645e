// The grid of search results.

import { showImage } from "./api.js";
import { button, el } from "./dom.js";
import { openViewer } from "./viewer.js";

/** Milliseconds that a picture is pointed at before its heat map is computed. */
const HEAT_DELAY = 250;

/**
 * A result of the server.
 *
 * @typedef {{id: string|number, score: number, key: string, metadata: Object}} Result
 */

/** The path of an item's image. */
export function imagePath(index, id) {
  return `${itemPath(index, id)}/image`;
}

/** The path of an item of an index. */
export function itemPath(index, id) {
  return `v1/indexes/${encodeURIComponent(index)}/items/${encodeURIComponent(id)}`;
}

/** Shows results as a grid of pictures. */
export class ResultGrid {
  #list;
  #actions;
  #results = [];
  #index = "";

  /**
   * @param {HTMLElement} list
   * @param {Object} actions
   * @param {(result: Result) => void} actions.like
   * @param {(result: Result) => void} actions.similar
   * @param {(path: string, signal: AbortSignal) => Promise<string|null>} actions.heat The object URL of a
   *     heat map, or null where there is none.
   */
  constructor(list, actions) {
    this.#list = list;
    this.#actions = actions;
    list.addEventListener("keydown", (event) => this.#moveFocus(event));
  }

  get length() {
    return this.#results.length;
  }

  /** Replaces the results. */
  show(index, results) {
    this.#index = index;
    this.#results = [];
    this.#list.replaceChildren();
    this.append(results);
  }

  /** Adds results of the same search. */
  append(results) {
    const first = this.#results.length;
    this.#results.push(...results);
    this.#list.append(...results.map((result, place) => this.#card(result, first + place)));
  }

  #card(result, place) {
    const img = el("img", { alt: altText(result), loading: "lazy", decoding: "async" });
    const path = imagePath(this.#index, result.id);
    showImage(img, path);
    const heat = el("img", { alt: "", className: "heat" });
    const picture = button("", () => this.#open(place), { className: "picture" });
    picture.setAttribute("aria-label", `Open ${result.key}`);
    picture.append(img, heat);
    this.#showHeatOnPointing(picture, heat, path);
    const texts = Object.values(result.metadata ?? {}).filter((value) => typeof value === "string");
    const facts = texts.join(" \u00b7 ");
    return el(
      "li",
      { className: "card" },
      picture,
      el(
        "div",
        { className: "card-head" },
        el("span", { className: "key", title: result.key }, fileName(result.key)),
        el("span", { className: "score", title: "Score" }, result.score.toFixed(3)),
      ),
      el("p", { className: "facts", title: facts }, facts),
      el("div", { className: "card-actions" }, ...this.#buttons(result)),
    );
  }

  #buttons(result) {
    return [
      button("Like this", () => this.#actions.like(result), { "aria-label": `Search like ${result.key}` }),
      button("Duplicates", () => this.#actions.similar(result), {
        "aria-label": `Near duplicates of ${result.key}`,
      }),
    ];
  }

  async #open(place) {
    const last = await openViewer(place, this.#results.length, (index) => this.#viewerItem(index));
    // An action of the viewer may have replaced the results.
    this.#pictures()[last]?.focus();
  }

  #viewerItem(place) {
    const result = this.#results[place];
    const facts = Object.entries(result.metadata ?? {}).map(([name, value]) => [name, valueText(value)]);
    return {
      title: result.key,
      show: (img) => {
        img.alt = altText(result);
        showImage(img, imagePath(this.#index, result.id));
      },
      facts: [["score", result.score.toFixed(4)], ["id", String(result.id)], ...facts],
      actions: this.#buttons(result),
    };
  }

  #showHeatOnPointing(picture, heat, path) {
    let controller = null;
    const stop = () => {
      controller?.abort();
      picture.classList.remove("heated", "heating");
    };
    const start = async () => {
      stop();
      controller = new AbortController();
      const { signal } = controller;
      if (!(await stays(signal))) return;
      picture.classList.add("heating");
      const url = await this.#actions.heat(path, signal);
      if (signal.aborted) return;
      picture.classList.remove("heating");
      if (url === null) return;
      heat.src = url;
      picture.classList.add("heated");
    };
    picture.addEventListener("pointerenter", start);
    picture.addEventListener("focus", start);
    picture.addEventListener("pointerleave", stop);
    picture.addEventListener("blur", stop);
  }

  /** Arrow keys move between pictures as they lie in the grid. */
  #moveFocus(event) {
    const pictures = this.#pictures();
    const current = pictures.indexOf(document.activeElement);
    if (current === -1) return;
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const target = pictures[current + steps[event.key]];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }

  #pictures() {
    return [...this.#list.querySelectorAll(".picture")];
  }
}

/** Resolves to true after HEAT_DELAY, or to false on an abort before. */
function stays(signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(true), HEAT_DELAY);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}

/** The last part of a key, which in a narrow card says more than the folders. */
function fileName(key) {
  return key.slice(key.lastIndexOf("/") + 1);
}

function altText({ key, metadata }) {
  const text = metadata?.caption ?? metadata?.text;
  return typeof text === "string" && text !== "" ? text : key;
}

function valueText(value) {
  if (Array.isArray(value)) return value.map(valueText).join("; ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
