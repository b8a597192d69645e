// Heat maps of a text over the pictures of an index.

import { getBlob, postForImage } from "./api.js";
import { dataUrl } from "./files.js";

/** Heat maps that are kept; the oldest goes first. */
const CAPACITY = 200;

const urls = new Map();

/**
 * The heat map of a text over an item of an index, as an object URL that stays valid until CAPACITY others
 * have been made.
 *
 * @param {{model: string, path: string, text: string}} map The model, and the path of the item's image.
 * @param {AbortSignal} signal
 */
export async function heatMap({ model, path, text }, signal) {
  const name = JSON.stringify([model, path, text]);
  if (!urls.has(name)) {
    const image = await dataUrl(await getBlob(path, signal));
    urls.set(name, await postForImage("v1/heatmap", { model, image, text }, signal));
    if (urls.size > CAPACITY) {
      const [oldest, url] = urls.entries().next().value;
      urls.delete(oldest);
      URL.revokeObjectURL(url);
    }
  }
  return urls.get(name);
}
