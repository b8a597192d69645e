// The caption panel: captions of images, written token by token where the server streams.

import { post, stream } from "./api.js";
import { el, numberOf, pictureImage, textOf } from "./dom.js";

/** Starts the panel. */
export function startCaption(panel) {
  const form = panel.querySelector("form");
  const input = form.querySelector("image-input");
  const runBar = form.querySelector("run-bar");
  const stage = panel.querySelector(".stage");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pictures = input.pictures;
    if (pictures.length === 0) return runBar.fail("Choose an image first.");
    const { model, prompt, max_tokens, num_beams } = form.elements;
    const body = {
      model: model.value,
      prompt: textOf(prompt),
      max_tokens: numberOf(max_tokens),
      num_beams: numberOf(num_beams),
    };
    const figures = pictures.map(figureOf);
    return runBar.run(async ({ signal }) => {
      stage.replaceChildren(el("div", { className: "captions" }, ...figures.map(({ figure }) => figure)));
      // Beams have no first token before the last one is known.
      if (pictures.length === 1 && (body.num_beams ?? 1) === 1) {
        await streamCaption({ ...body, image: pictures[0].url }, figures[0].text, signal);
      } else {
        const images = pictures.map(({ url }) => url);
        const { captions } = await post("v1/caption", { ...body, images }, signal);
        captions.forEach((caption, place) => (figures[place].text.textContent = caption));
      }
    });
  });
}

async function streamCaption(body, text, signal) {
  text.textContent = "";
  const onEvent = (event) => {
    if (event.captions) text.textContent = event.captions[0];
    else text.textContent += event.text;
  };
  await stream("v1/caption", body, onEvent, signal);
}

function figureOf(picture) {
  const text = el("figcaption", { "aria-live": "polite" }, "\u2026");
  return { text, figure: el("figure", {}, pictureImage(picture), text) };
}
