// The dialog with one picture at full size. The arrow keys go through the pictures of its list.

import { el } from "./dom.js";

/**
 * A picture of the viewer.
 *
 * @typedef {Object} ViewerItem
 * @property {string} title
 * @property {(img: HTMLImageElement) => void} show Sets the source and alternative text.
 * @property {[string, string][]} facts Names and values beside the picture.
 * @property {HTMLButtonElement[]} actions A press closes the viewer.
 */

const dialog = document.getElementById("viewer");
const title = dialog.querySelector("h2");
const figure = dialog.querySelector("figure");
const facts = dialog.querySelector("dl");
const actions = dialog.querySelector(".viewer-actions");
const previous = dialog.querySelector("[name=previous]");
const next = dialog.querySelector("[name=next]");

let position = 0;
let length = 0;
let itemAt = null;

/**
 * Opens the viewer.
 *
 * @param {number} index The first picture, from 0 below `count`.
 * @param {number} count
 * @param {(index: number) => ViewerItem} item
 * @returns {Promise<number>} The index of the picture that was open at the end.
 */
export function openViewer(index, count, item) {
  [length, itemAt] = [count, item];
  show(index);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(position), { once: true });
  });
}

function show(index) {
  position = index;
  const item = itemAt(index);
  const img = el("img");
  item.show(img);
  figure.replaceChildren(img);
  title.textContent = item.title;
  facts.replaceChildren(...item.facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  actions.replaceChildren(...item.actions);
  previous.disabled = index === 0;
  next.disabled = index === length - 1;
}

function step(by) {
  const index = position + by;
  if (index >= 0 && index < length) show(index);
}

previous.onclick = () => step(-1);
next.onclick = () => step(1);
dialog.querySelector("[name=close]").onclick = () => dialog.close();
actions.addEventListener("click", (event) => {
  if (event.target.closest("button")) dialog.close();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
