// The page with a server that is loading at first, and takes requests with a key alone.

import assert from "node:assert/strict";

export const KEY = "correct-horse";

export const KEY_FLOWS = {
  "a loading server is waited for": async ({ page, url, watch }) => {
    watch.allow(/status of (503|401)/);
    await page.goto(url);
    await page.getByText("The server is loading its models").waitFor();
    await page.getByRole("dialog", { name: "API key" }).waitFor();
  },

  "a wrong key is refused and a right one kept": async ({ page, watch, shoot }) => {
    watch.allow(/status of 401/);
    const dialog = page.getByRole("dialog", { name: "API key" });
    await dialog.getByLabel("Key", { exact: true }).fill("wrong");
    await page.keyboard.press("Enter");
    await dialog.getByText("missing or unknown").waitFor();
    await shoot(page, "key");
    await dialog.getByLabel("Key", { exact: true }).fill(KEY);
    await page.keyboard.press("Enter");
    await page.getByRole("tab", { selected: true }).waitFor();
    await page.getByRole("button", { name: "API key" }).waitFor();
    assert.equal(await page.evaluate(() => localStorage.length), 0);
  },

  "images of an index are fetched with the key": async ({ page }) => {
    await page.getByRole("searchbox").fill("a red circle");
    await page.keyboard.press("Enter");
    const image = page.locator(".picture img").first();
    await image.waitFor();
    await page.locator('.picture img[src^="blob:"]').first().waitFor();
    await image.evaluate((element) => element.decode());
  },
};
