// Small PNG files: a shape on a ground, drawn by code so that the test needs no files.

import { crc32, deflateSync } from "node:zlib";

const SIDE = 96;

export const COLORS = {
  red: [206, 74, 62],
  green: [74, 142, 92],
  blue: [64, 108, 176],
  yellow: [226, 178, 64],
};

export const SHAPES = {
  circle: (x, y) => x * x + y * y < 0.4,
  square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.55,
  triangle: (x, y) => y < 0.55 && y > 2 * Math.abs(x) - 0.75,
};

/** A PNG of a shape; `fade`, from 0 to 1, mixes it with grey noise as a preview of diffusion does. */
export function shapePng(shape, color, fade = 0) {
  return png(SIDE, (x, y) => {
    const noise = 255 * (Math.abs(Math.sin(x * 91.7 + y * 47.3) * 1000) % 1);
    const plain = SHAPES[shape](x, y) ? COLORS[color] : [240, 236, 226];
    return plain.map((level) => level * (1 - fade) + noise * fade);
  });
}

/** A PNG of a shape under a heat map. */
export function heatPng(shape, color) {
  return png(SIDE, (x, y) => {
    const heat = Math.exp(-3 * (x * x + y * y));
    const plain = SHAPES[shape](x, y) ? COLORS[color] : [240, 236, 226];
    const map = [255 * heat, 90 * heat, 255 * (1 - heat)];
    return plain.map((level, channel) => (level + map[channel]) / 2);
  });
}

/** Encodes a square RGB image of `side` pixels; `pixel` maps x and y, from -1 to 1, to three levels. */
function png(side, pixel) {
  const rows = Buffer.alloc(side * (1 + 3 * side)); // each row begins with its filter, 0: none
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const levels = pixel((2 * column) / (side - 1) - 1, (2 * row) / (side - 1) - 1);
      levels.forEach((level, channel) => {
        rows[row * (1 + 3 * side) + 1 + 3 * column + channel] = Math.round(level);
      });
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits, RGB, deflate, no filter, no interlace
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  const end = chunk("IEND", Buffer.alloc(0));
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), end]);
}

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const [length, checksum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  checksum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, checksum]);
}
