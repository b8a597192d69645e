// The panels of single models: classify, caption, ask, draw, edit, score.

import assert from "node:assert/strict";
import { ENDLESS_PROMPT } from "./mock.mjs";
import { choose, imagesShown, maskLevels, open, run, transfer } from "./steps.mjs";

/** Steps of drawings and edits against a real model. */
const FEW_STEPS = "4";

export const PANEL_FLOWS = {
  "classify a dropped image": async ({ page, shoot }) => {
    if (!(await open(page, "Classify"))) return "no model";
    await transfer(page, "drop");
    await page.locator("#classify .thumbs img").waitFor();
    await page.getByLabel("Labels, one a line").fill("a red circle\na blue square\na yellow triangle");
    await run(page, "Classify");
    assert.equal(await page.locator("#classify .bars li").count(), 3);
    await shoot(page, "classify");
    return undefined;
  },

  "the server's error is shown": async ({ page, watch, shoot }) => {
    if (!(await open(page, "Classify"))) return "no model";
    watch.allow(/status of 4(00|15|22)/);
    const file = { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("not a PNG") };
    await page.locator("#classify input[type=file]").setInputFiles(file);
    await page.locator("#classify").getByRole("button", { name: "Classify" }).click();
    const error = page.locator("#classify run-bar [role=alert]");
    await error.filter({ hasText: /\w/ }).waitFor();
    await shoot(page, "error");
    return undefined;
  },

  "a caption": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Caption"))) return "no model";
    await choose(page, "#caption", "red");
    await run(page, "Caption");
    const caption = await page.locator("#caption figcaption").textContent();
    assert.ok(caption.trim().length > 1);
    if (mock) assert.equal(caption, "a red circle on paper");
    await shoot(page, "caption");
    return undefined;
  },

  "captions of several images": async ({ page }) => {
    if (!(await open(page, "Caption"))) return "no model";
    await choose(page, "#caption", "blue");
    await run(page, "Caption");
    assert.equal(await page.locator("#caption figcaption").count(), 2);
    return undefined;
  },

  "questions with a history": async ({ page, shoot }) => {
    if (!(await open(page, "Ask"))) return "no model";
    await choose(page, "#ask", "red");
    for (const question of ["What shape is it?", "What color is it?"]) {
      await page.getByLabel("Question").fill(question);
      await run(page, "Ask");
    }
    const questions = await page.locator("#ask .history h2").allTextContents();
    assert.deepEqual(questions, ["What color is it?", "What shape is it?"]);
    await shoot(page, "ask");
    return undefined;
  },

  draw: async ({ page, mock, shoot }) => {
    if (!(await open(page, "Draw"))) return "no model";
    await page.locator("#draw [name=prompt]").fill("a yellow triangle");
    await page.locator("#draw [name=seed]").fill("11");
    if (!mock) await page.locator("#draw [name=steps]").fill(FEW_STEPS);
    await run(page, "Draw");
    await imagesShown(page, "#draw figure img");
    await page.getByText("Seed 11").waitFor();
    if (mock) assert.equal(mock.last("/v1/generate").width, undefined);
    const download = page.waitForEvent("download");
    await page.locator("#draw").getByRole("link", { name: "Download" }).click();
    assert.equal((await download).suggestedFilename(), "a-yellow-triangle-11.png");
    await shoot(page, "draw");
    return undefined;
  },

  "a drawing is cancelled": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Draw"))) return "no model";
    await page.locator("#draw [name=prompt]").fill(ENDLESS_PROMPT);
    if (!mock) await page.locator("#draw [name=steps]").fill("");
    await page.locator("#draw").getByRole("button", { name: "Draw", exact: true }).click();
    await page.locator("#draw progress[value]").waitFor();
    if (mock) await shoot(page, "draw-progress");
    await page.locator("#draw").getByRole("button", { name: "Cancel" }).click();
    await page.locator("#draw output", { hasText: "Cancelled" }).waitFor();
    await mock?.endlessClosed;
    assert.equal(await page.locator("#draw .drawing").count(), 1);
    return undefined;
  },

  "edit a drawing by an instruction": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Draw"))) return "no model";
    if (!mock) return "a model need not read instructions";
    await page.getByRole("button", { name: "Edit this" }).click();
    await page.locator("#edit .thumbs img").waitFor();
    await page.getByLabel("Instruction", { exact: true }).fill("make it blue");
    await run(page, "Edit");
    const border = page.getByRole("slider", { name: /original/ });
    await border.focus();
    await page.keyboard.press("Home");
    assert.equal(await border.inputValue(), "0");
    await border.fill("40");
    assert.equal(mock.last("/v1/edit").instruction, "make it blue");
    await shoot(page, "edit");
    return undefined;
  },

  "edit a painted part": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Draw"))) return "no model";
    await page.getByRole("button", { name: "Edit this" }).click(); // an image of a size that the model takes
    await page.getByLabel("A painted part").check();
    const canvas = page.locator("#edit canvas");
    await canvas.waitFor();
    const box = await canvas.boundingBox();
    await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.4);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.5, { steps: 5 });
    await page.mouse.up();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Space");
    await page.getByRole("button", { name: "Undo" }).click();
    await page.getByLabel("Description of the painted part").fill("a blue triangle");
    if (!mock) await page.locator("#edit [name=steps]").fill(FEW_STEPS);
    await run(page, "Edit");
    if (mock) assert.deepEqual(await maskLevels(page, mock.last("/v1/edit").mask), [0, 255]);
    await page.locator("#edit .compare").waitFor();
    await shoot(page, "edit-mask");
    return undefined;
  },

  "score images": async ({ page, shoot }) => {
    if (!(await open(page, "Score"))) return "no model";
    await choose(page, "#score", "red");
    await choose(page, "#score", "blue");
    await page.locator("#score [name=prompt]").fill("a blue circle");
    await run(page, "Score");
    assert.equal(await page.locator(".ranking li").count(), 2);
    await shoot(page, "score");
    return undefined;
  },
};
