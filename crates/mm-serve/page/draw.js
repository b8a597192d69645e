// The draw panel: images from a prompt.

import { button, el, numberOf, textOf } from "./dom.js";
import { Preview, editButton, generate, pictureActions } from "./generation.js";

/** Earlier drawings that stay on the page. */
const NUM_KEPT = 12;

/**
 * Starts the panel.
 *
 * @param {HTMLElement} panel
 * @param {{editPicture: (picture: import("./files.js").Picture) => void}} page
 */
export function startDraw(panel, { editPicture }) {
  const form = panel.querySelector("form");
  const runBar = form.querySelector("run-bar");
  const stage = panel.querySelector(".stage");
  const empty = stage.firstElementChild;
  const drawings = el("div", { className: "drawings" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = bodyOf(form.elements);
    if (!body.prompt) return runBar.fail("Write a prompt.");
    return runBar.run(async (job) => {
      const preview = new Preview(`${body.width ?? body.height ?? 1} / ${body.height ?? body.width ?? 1}`);
      const drawing = el(
        "article",
        { className: "drawing" },
        el("h2", {}, body.prompt),
        el("div", { className: "pictures" }, preview.element),
      );
      if (!drawings.isConnected) stage.replaceChildren(drawings);
      drawings.prepend(drawing);
      try {
        const pictures = await generate("v1/generate", body, preview, job);
        const figures = pictures.map((picture) => figureOf(picture, body.prompt, form, editPicture));
        drawing.querySelector(".pictures").replaceChildren(...figures);
      } catch (error) {
        drawing.remove();
        if (drawings.children.length === 0) stage.replaceChildren(empty);
        throw error;
      }
      while (drawings.children.length > NUM_KEPT) drawings.lastElementChild.remove();
    });
  });
}

function bodyOf(fields) {
  return {
    model: fields.model.value,
    prompt: textOf(fields.prompt),
    negative_prompt: textOf(fields.negative_prompt),
    width: numberOf(fields.width),
    height: numberOf(fields.height),
    steps: numberOf(fields.steps),
    guidance_scale: numberOf(fields.guidance_scale),
    seed: numberOf(fields.seed),
    n: numberOf(fields.n),
  };
}

function figureOf(picture, prompt, form, editPicture) {
  const img = el("img", { src: picture.url, alt: prompt });
  const keepSeed = button("Keep seed", () => (form.elements.seed.value = picture.seed), {
    title: "Draw with this seed again",
  });
  const actions = pictureActions(picture, editButton(picture, editPicture), keepSeed);
  return el("figure", {}, img, el("figcaption", {}, actions));
}
