// What flows have in common.

import { shapePng } from "./picture.mjs";

/** Opens a tab; returns false where there is none. */
export async function open(page, name) {
  const tab = page.getByRole("tab", { name, exact: true });
  await page.getByRole("tab", { selected: true }).waitFor();
  if ((await tab.count()) === 0) return false;
  await tab.click();
  return true;
}

/** Chooses an image of a circle by the file input of a panel. */
export async function choose(page, panel, color) {
  const thumbs = page.locator(`${panel} .thumbs img[alt="${color}.png"]`);
  const file = { name: `${color}.png`, mimeType: "image/png", buffer: shapePng("circle", color) };
  await page.locator(`${panel} input[type=file]`).setInputFiles(file);
  await thumbs.waitFor();
}

/** Presses the submit button of the open panel and waits for its result. */
export async function run(page, name) {
  const panel = page.getByRole("tabpanel");
  await panel.getByRole("button", { name, exact: true }).click();
  const done = panel.locator("run-bar output", { hasText: /^(Done|Answer|No answer)/ });
  const error = panel.locator("[role=alert]", { hasText: /\S/ });
  await done.or(error).waitFor();
  if (await error.isVisible()) throw new Error(`${name}: ${await error.textContent()}`);
}

/** Waits until no search is under way. */
export async function searchDone(page) {
  await page.locator("#search form[aria-busy=false]").waitFor();
}

/** Pastes or drops an image of a circle. */
export async function transfer(page, type) {
  await page.evaluate(
    ([type, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "circle.png", { type: "image/png" }));
      const event =
        type === "paste"
          ? new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true })
          : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    },
    [type, [...shapePng("circle", "red")]],
  );
}

/** Waits until the images of a selector that are on screen have pixels. */
export async function imagesShown(page, selector) {
  const images = await page.locator(selector).all();
  for (const image of images) {
    await image.scrollIntoViewIfNeeded();
    await image.evaluate((element) => element.decode());
  }
  await page.evaluate(() => scrollTo(0, 0));
}

/** The levels of a mask, sorted, without those of smoothed edges. */
export async function maskLevels(page, url) {
  return page.evaluate(async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const levels = new Set(data.filter((_, place) => place % 4 === 0));
    return [...levels].filter((level) => level === 0 || level === 255).sort((a, b) => a - b);
  }, url);
}
