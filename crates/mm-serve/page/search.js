// The search panel: texts and images, alone or together, over the indexes of the server.

import { get, post, showImage } from "./api.js";
import { count, duration, textOf } from "./dom.js";
import { heatMap } from "./heat.js";
import { QueryParts } from "./query.js";
import { ResultGrid, imagePath, itemPath } from "./results.js";

/** The `diverse` of a search with the switch on, from 0 (none) to 1. */
const DIVERSE = 0.5;

/** Near duplicates that are shown. */
const NUM_SIMILAR = 24;

/**
 * Starts the panel.
 *
 * @param {HTMLElement} panel
 * @param {Object} page
 * @param {{id: string, model: string, rows: number, dim: number}[]} page.indexes
 */
export function startSearch(panel, { indexes }) {
  return new Search(panel, indexes);
}

class Search {
  #form;
  #indexes;
  #parts;
  #grid;
  #status;
  #error;
  #more;
  #hint;
  #controller = null;
  /** The body of the shown search; null for near duplicates and before the first search. */
  #shown = null;
  /** The text that heat maps are for, or null. */
  #heatText = null;

  constructor(panel, indexes) {
    this.#indexes = indexes;
    this.#form = panel.querySelector("form");
    this.#status = panel.querySelector("output");
    this.#error = panel.querySelector("[role=alert]");
    this.#more = panel.querySelector("[name=more]");
    this.#hint = panel.querySelector(".hint");
    this.#parts = new QueryParts(panel.querySelector(".parts"), () => this.#search());
    this.#grid = new ResultGrid(panel.querySelector(".results"), {
      like: (result) => this.#like(result),
      similar: (result) => this.#similar(result),
      heat: (path, signal) => this.#heat(path, signal),
    });
    const { index } = this.#form.elements;
    index.replaceChildren(...indexes.map(({ id }) => new Option(id)));
    index.closest("label").hidden = indexes.length < 2;
    this.#listen(panel.querySelector("image-input"));
    this.#showSize();
  }

  #listen(imageInput) {
    const { index, add, k, filter, diverse } = this.#form.elements;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    add.addEventListener("click", () => this.#addText());
    imageInput.addEventListener("change", () => {
      for (const { name, url } of imageInput.takePictures()) {
        this.#parts.add({ name, query: { image: url }, show: (img) => (img.src = url) });
      }
      this.#search();
    });
    index.addEventListener("change", () => {
      this.#parts.clear(); // items of another index
      this.#clear();
    });
    for (const option of [k, filter, diverse]) {
      option.addEventListener("change", () => this.#shown && this.#search());
    }
    this.#more.addEventListener("click", () => this.#showMore());
  }

  get #index() {
    return this.#form.elements.index.value;
  }

  /** Makes a part of the text in the box, which is free for another then. */
  #addText() {
    const { text } = this.#form.elements;
    const value = textOf(text);
    if (value) this.#parts.add({ name: value, query: { text: value } });
    text.value = "";
    text.focus();
  }

  #body() {
    const { text, k, filter, diverse } = this.#form.elements;
    const value = textOf(text);
    return {
      index: this.#index,
      queries: [...(value ? [{ text: value, weight: 1 }] : []), ...this.#parts.queries],
      k: Number(k.value),
      filter: textOf(filter),
      diverse: diverse.checked ? DIVERSE : undefined,
    };
  }

  async #search() {
    const body = this.#body();
    if (body.queries.length === 0) {
      this.#clear();
      return;
    }
    const answer = await this.#request((signal) => post("v1/search", body, signal));
    if (!answer) return;
    this.#shown = body;
    this.#heatText = heatTextOf(body.queries);
    this.#grid.show(body.index, answer.results);
    this.#describePage(answer);
  }

  async #showMore() {
    const body = { ...this.#shown, offset: this.#grid.length };
    const answer = await this.#request((signal) => post("v1/search", body, signal));
    if (!answer) return;
    this.#grid.append(answer.results);
    this.#describePage(answer);
  }

  /** Searches like a result alone; a text in the box then changes it: "like this, but red". */
  #like(result) {
    const path = imagePath(this.#index, result.id);
    this.#parts.clear();
    this.#parts.add({ name: result.key, query: { id: result.id }, show: (img) => showImage(img, path) });
    this.#form.elements.text.value = "";
    this.#form.elements.text.focus();
    this.#search();
  }

  async #similar(result) {
    const index = this.#index;
    const path = `${itemPath(index, result.id)}/similar?k=${NUM_SIMILAR}`;
    const answer = await this.#request((signal) => get(path, signal));
    if (!answer) return;
    this.#shown = null;
    this.#heatText = null;
    this.#grid.show(index, answer.results);
    this.#describe(answer, `${count(answer.results.length, "near duplicate")} of ${result.key}`);
    this.#more.hidden = true;
  }

  async #heat(path, signal) {
    const text = this.#heatText;
    if (text === null || !this.#form.elements.heat.checked) return null;
    const { model } = this.#indexes.find(({ id }) => id === this.#index);
    try {
      return await heatMap({ model, path, text }, signal);
    } catch (error) {
      const isPassing = error.name === "AbortError" || error.status === 429;
      if (!isPassing) {
        this.#form.elements.heat.checked = false; // each picture would fail in the same way
        this.#error.textContent = `Heat maps are off: ${error.message}`;
      }
      return null;
    }
  }

  /** Awaits a request, which the next one aborts. Its error is shown, and undefined returned. */
  async #request(send) {
    this.#controller?.abort();
    const controller = new AbortController();
    this.#controller = controller;
    this.#error.textContent = "";
    this.#form.ariaBusy = "true";
    try {
      return await send(controller.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#error.textContent = error.message;
      return undefined;
    } finally {
      if (this.#controller === controller) this.#form.ariaBusy = "false";
    }
  }

  #describePage(answer) {
    const shown = this.#grid.length;
    this.#describe(answer, `${shown} of ${count(answer.total, "result")}`);
    this.#more.hidden = answer.results.length < this.#shown.k || shown >= answer.total;
  }

  #describe({ seconds }, text) {
    this.#hint.hidden = true;
    this.#status.textContent = `${text} \u00b7 ${duration(seconds)}`;
  }

  #clear() {
    this.#controller?.abort();
    this.#shown = null;
    this.#error.textContent = "";
    this.#more.hidden = true;
    this.#hint.hidden = false;
    this.#grid.show(this.#index, []);
    this.#showSize();
  }

  #showSize() {
    const { id, rows } = this.#indexes.find((index) => index.id === this.#index);
    this.#status.textContent = `${count(rows, "picture")} in ${id}`;
  }
}

/** The text with the largest positive weight, or null. */
function heatTextOf(queries) {
  const texts = queries.filter(({ text, weight }) => text !== undefined && weight > 0);
  texts.sort((a, b) => b.weight - a.weight);
  return texts[0]?.text ?? null;
}
