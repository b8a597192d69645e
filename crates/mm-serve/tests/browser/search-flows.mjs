// The search panel: parts of a query, heat maps, the grid by keys.

import assert from "node:assert/strict";
import { imagesShown, open, searchDone, transfer } from "./steps.mjs";

export const SEARCH_FLOWS = {
  "search by text": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Search"))) return "no index";
    await shoot(page, "search-empty");
    await page.locator("body").press("/");
    await page.keyboard.type("a red circle");
    await page.keyboard.press("Enter");
    await page.locator(".card").first().waitFor();
    if (mock) {
      assert.deepEqual(mock.last("/v1/search").queries, [{ text: "a red circle", weight: 1 }]);
      assert.equal(await page.locator(".card").count(), 24);
    }
    await imagesShown(page, "#search .picture img:first-child");
    await page.locator(".picture").first().hover();
    await page.locator(".picture.heated").waitFor();
    await shoot(page, "search");
    return undefined;
  },

  "more results": async ({ page }) => {
    const more = page.getByRole("button", { name: "More results" });
    if (!(await more.isVisible())) return "all results are shown";
    const before = await page.locator(".card").count();
    await more.click();
    await page.locator(".card").nth(before).waitFor();
    return undefined;
  },

  "a filter": async ({ page, mock }) => {
    if (!mock) return "metadata differs by index";
    await page.getByLabel("Filter").fill('color = "green"');
    await page.keyboard.press("Enter");
    await page.locator("#search output", { hasText: /^9 of 9/ }).waitFor();
    assert.equal(mock.last("/v1/search").filter, 'color = "green"');
    await page.getByLabel("Filter").fill("");
    await page.keyboard.press("Enter");
    await page.locator("#search output", { hasText: /^24 of/ }).waitFor();
    return undefined;
  },

  "keys go through the grid and open a picture": async ({ page, shoot }) => {
    if (!(await open(page, "Search"))) return "no index";
    const pictures = page.locator(".picture");
    await pictures.first().focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    const viewer = page.getByRole("dialog");
    await viewer.waitFor();
    const second = await viewer.getByRole("heading").textContent();
    await page.keyboard.press("ArrowRight");
    assert.notEqual(await viewer.getByRole("heading").textContent(), second);
    await imagesShown(page, "#viewer img");
    await shoot(page, "viewer");
    await page.keyboard.press("Escape");
    await viewer.waitFor({ state: "hidden" });
    assert.ok(await pictures.nth(2).evaluate((picture) => picture === document.activeElement));
    return undefined;
  },

  "like this, but with another text, without a third": async ({ page, mock, shoot }) => {
    if (!(await open(page, "Search"))) return "no index";
    await page
      .getByRole("button", { name: /^Search like/ })
      .first()
      .click();
    const parts = page.locator(".part");
    await parts.first().waitFor();
    const box = page.getByRole("searchbox");
    await box.fill("blue");
    await page.getByRole("button", { name: "Add" }).click();
    await box.fill("square");
    await page.getByRole("button", { name: "Add" }).click();
    await page.getByRole("button", { name: "With square" }).click();
    await page.getByRole("spinbutton", { name: "Weight of blue" }).fill("0.5");
    await box.press("Enter");
    await page.getByRole("button", { name: "Without square" }).waitFor();
    await searchDone(page);
    if (mock) {
      const [like, more, less] = mock.last("/v1/search").queries;
      assert.equal(typeof like.id, "number");
      assert.deepEqual(
        [more, less],
        [
          { text: "blue", weight: 0.5 },
          { text: "square", weight: -1 },
        ],
      );
    }
    await shoot(page, "search-parts");
    return undefined;
  },

  "near duplicates": async ({ page, mock }) => {
    if (!(await open(page, "Search"))) return "no index";
    await page
      .getByRole("button", { name: /^Near duplicates/ })
      .first()
      .click();
    await page.locator("#search output", { hasText: "near duplicate" }).waitFor();
    if (mock) assert.equal(await page.locator(".card").count(), 3);
    return undefined;
  },

  "search by a pasted image": async ({ page, mock }) => {
    if (!(await open(page, "Search"))) return "no index";
    while (await page.locator(".part").count()) await page.locator(".part .remove").first().click();
    await transfer(page, "paste");
    await page.locator(".part img").waitFor();
    await page.locator(".card").first().waitFor();
    await searchDone(page);
    if (mock) assert.match(mock.last("/v1/search").queries[0].image, /^data:image\/png;base64,/);
    return undefined;
  },
};
