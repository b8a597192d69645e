// The score panel: images in the order of a reward.

import { post } from "./api.js";
import { el, pictureImage, textOf } from "./dom.js";

/** Starts the panel. */
export function startScore(panel) {
  const form = panel.querySelector("form");
  const input = form.querySelector("image-input");
  const runBar = form.querySelector("run-bar");
  const stage = panel.querySelector(".stage");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pictures = input.pictures;
    if (pictures.length === 0) return runBar.fail("Choose an image first.");
    const body = {
      model: form.elements.model.value,
      images: pictures.map(({ url }) => url),
      prompt: textOf(form.elements.prompt),
    };
    return runBar.run(async ({ signal }) => {
      const { scores } = await post("v1/reward", body, signal);
      const scored = pictures.map((picture, place) => ({ picture, score: scores[place] }));
      scored.sort((a, b) => b.score - a.score);
      stage.replaceChildren(el("ol", { className: "ranking" }, ...scored.map(row)));
    });
  });
}

function row({ picture, score }) {
  return el(
    "li",
    {},
    pictureImage(picture),
    el("span", { className: "key" }, picture.name),
    el("span", { className: "score" }, score.toFixed(4)),
  );
}
