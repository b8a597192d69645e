// What drawing and editing have in common: previews during the steps, and pictures at the end.

import { stream } from "./api.js";
import { button, el } from "./dom.js";

/**
 * A picture that was generated.
 *
 * @typedef {Object} Generated
 * @property {string} url A data URL.
 * @property {string} name
 * @property {number} seed
 * @property {boolean} isFlagged The safety checker found it unsafe, and it is black.
 */

/**
 * Generates pictures, with previews where the server sends them.
 *
 * @param {string} path
 * @param {Object} body
 * @param {Preview} preview
 * @param {{signal: AbortSignal, report: (done: number, total: number) => void}} job
 * @returns {Promise<Generated[]>}
 */
export async function generate(path, body, preview, { signal, report }) {
  let answer = null;
  const onEvent = (event) => {
    if (event.images) answer = event;
    if (event.steps) report(event.step, event.steps);
    if (event.preview) preview.show(event.preview);
  };
  await stream(path, body, onEvent, signal);
  if (answer === null) throw new Error("The answer of the server has no images.");
  const name = fileName(body.prompt ?? body.instruction);
  return answer.images.map((url, place) => {
    const seed = answer.seeds[place];
    return { url, seed, name: `${name}-${seed}.png`, isFlagged: answer.flagged?.[place] ?? false };
  });
}

/** The frame of an image that is not done yet. Its size is known before, so that nothing moves. */
export class Preview {
  #img = el("img", { alt: "Preview of the image in progress" });

  /** @param {string} ratio The aspect ratio as CSS has it, `width / height`. */
  constructor(ratio) {
    this.element = el("div", { className: "frame" }, this.#img);
    this.element.style.aspectRatio = ratio;
    this.#img.hidden = true;
  }

  show(url) {
    this.#img.src = url;
    this.#img.hidden = false;
  }
}

/** The seed of a picture, a link that saves it, and further buttons. */
export function pictureActions({ url, name, seed, isFlagged }, ...buttons) {
  const download = el("a", { href: url, download: name, className: "button" }, "Download");
  const label = isFlagged ? `Seed ${seed}: found unsafe, left black` : `Seed ${seed}`;
  return el(
    "div",
    { className: "picture-actions" },
    el("span", { className: "note" }, label),
    ...buttons,
    download,
  );
}

/** A button that opens the edit panel with a picture. */
export function editButton(picture, editPicture) {
  return button("Edit this", () => editPicture(picture));
}

function fileName(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["image"];
  return words.slice(0, 8).join("-");
}
