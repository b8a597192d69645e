// Image files as data URLs, the one form in which the server takes images in JSON.

/** Media types that the server decodes. */
const DECODED = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff"];

/**
 * An image as the page holds it.
 *
 * @typedef {{name: string, url: string}} Picture `url` is a data URL.
 */

/**
 * Reads an image file. Formats that the browser decodes and the server does not, such as AVIF and SVG, become
 * PNG.
 *
 * @param {File} file
 * @returns {Promise<Picture>}
 */
export async function readPicture(file) {
  const isTyped = file.type.startsWith("image/");
  // The server finds the format in the bytes; a browser that does not know the file's name gives no type.
  const url = await dataUrl(isTyped ? file : new Blob([file], { type: "image/unknown" }));
  if (DECODED.includes(file.type)) return { name: file.name, url };
  return { name: file.name, url: await toPng(url).catch(() => url) };
}

/** The bytes of a Blob as a data URL. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The image cannot be read."));
    reader.readAsDataURL(blob);
  });
}

/** The image files of a paste or a drop. */
export function imageFiles(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** Decodes an image; its `naturalWidth` and `naturalHeight` have the EXIF orientation applied. */
export async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

async function toPng(url) {
  const image = await decode(url);
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png");
}
