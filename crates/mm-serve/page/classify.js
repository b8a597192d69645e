// The classify panel: the probabilities of labels for an image, without training (zero-shot).

import { post } from "./api.js";
import { bars, el, linesOf } from "./dom.js";

const MEANING = {
  softmax: "Shares among these labels: they add up to 100\u00a0%.",
  sigmoid: "Each label for itself: all may be low.",
};

/** Starts the panel. */
export function startClassify(panel) {
  const form = panel.querySelector("form");
  const input = form.querySelector("image-input");
  const runBar = form.querySelector("run-bar");
  const stage = panel.querySelector(".stage");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [picture] = input.pictures;
    const { model, labels, templates } = form.elements;
    const lines = linesOf(labels);
    if (!picture) return runBar.fail("Choose an image first.");
    if (lines.length === 0) return runBar.fail("Write at least one label.");
    const body = { model: model.value, image: picture.url, labels: lines };
    if (linesOf(templates).length > 0) body.templates = linesOf(templates);
    return runBar.run(async ({ signal }) => {
      stage.replaceChildren(); // bars beside another image would mislead
      const { probabilities, results } = await post("v1/classify", body, signal);
      stage.replaceChildren(
        bars(results[0].labels),
        el("p", { className: "note" }, MEANING[probabilities] ?? ""),
      );
    });
  });
}
