// The ask panel: questions about an image, with a history of answers.

import { post } from "./api.js";
import { bars, el, pictureImage, textOf } from "./dom.js";

/** Answers that are shown of a question. */
const NUM_ANSWERS = 5;

/** Starts the panel. */
export function startAsk(panel) {
  const form = panel.querySelector("form");
  const input = form.querySelector("image-input");
  const runBar = form.querySelector("run-bar");
  const stage = panel.querySelector(".stage");
  const history = el("ol", { className: "history" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [picture] = input.pictures;
    const question = textOf(form.elements.question);
    if (!picture) return runBar.fail("Choose an image first.");
    if (!question) return runBar.fail("Write a question.");
    const body = { model: form.elements.model.value, image: picture.url, question };
    return runBar.run(async ({ signal }) => {
      const { answers } = await post("v1/vqa", body, signal);
      if (!history.isConnected) stage.replaceChildren(history);
      history.prepend(entry(picture, question, answers));
      form.elements.question.select();
      return answers.length > 0 ? `Answer: ${answers[0].answer}` : "No answer";
    });
  });
}

function entry(picture, question, answers) {
  const items = answers
    .slice(0, NUM_ANSWERS)
    .map(({ answer, probability }) => ({ label: answer, probability }));
  return el("li", {}, pictureImage(picture), el("div", {}, el("h2", {}, question), bars(items)));
}
