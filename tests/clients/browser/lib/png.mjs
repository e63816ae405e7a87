// Makes a screenshot small: 256 colours, which a page with little colour does not show, in place of 16 million.

import { crc32, deflateSync, inflateSync } from 'node:zlib';

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');

/** The pixels of a PNG as browsers write it: 8 bits a channel, red, green and blue, perhaps opacity, not interlaced. */
function decode(png) {
  const parts = [];
  let header;
  for (let at = SIGNATURE.length; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const kind = png.toString('latin1', at + 4, at + 8);
    const content = png.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') header = content;
    if (kind === 'IDAT') parts.push(content);
    at += length + 12;
  }
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const channels = { 2: 3, 6: 4 }[header[9]];
  if (header[8] !== 8 || !channels || header[12] !== 0) throw new Error('not a PNG of this form');
  return { width, height, channels, pixels: unfilter(inflateSync(Buffer.concat(parts)), width * channels, height, channels) };
}

/** Undoes the filters of the lines, each of which predicts a byte from those to the left and above. */
function unfilter(bytes, line, height, channels) {
  const pixels = Buffer.alloc(line * height);
  for (let y = 0; y < height; y += 1) {
    const filter = bytes[y * (line + 1)];
    for (let x = 0; x < line; x += 1) {
      const at = y * line + x;
      const left = x < channels ? 0 : pixels[at - channels];
      const up = y === 0 ? 0 : pixels[at - line];
      const corner = x < channels || y === 0 ? 0 : pixels[at - line - channels];
      const distance = (value) => Math.abs(left + up - corner - value);
      const nearest = distance(left) <= distance(up) && distance(left) <= distance(corner) ? left : distance(up) <= distance(corner) ? up : corner;
      const guess = [0, left, up, (left + up) >> 1, nearest][filter];
      pixels[at] = bytes[y * (line + 1) + 1 + x] + guess;
    }
  }
  return pixels;
}

function chunk(kind, content) {
  const named = Buffer.concat([Buffer.from(kind, 'latin1'), content]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length);
  sum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, sum]);
}

/** Colours that differ by less than this are one: the sum of the squares of the differences of their parts. */
const ALIKE = 150;

/**
 * The same picture with at most 256 colours: those that it has most of, without those that are like one of them. Each other
 * colour becomes the nearest of these.
 */
export function withFewColours(png) {
  const { width, height, channels, pixels } = decode(png);
  const colourAt = (at) => (pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2];
  const uses = new Map();
  for (let at = 0; at < pixels.length; at += channels) uses.set(colourAt(at), (uses.get(colourAt(at)) ?? 0) + 1);
  const parts = (colour) => [colour >> 16, (colour >> 8) & 255, colour & 255];
  const far = (a, b) => parts(a).reduce((sum, part, index) => sum + (part - parts(b)[index]) ** 2, 0);
  const palette = [];
  for (const [colour] of [...uses].sort(([, a], [, b]) => b - a)) {
    if (palette.length < 256 && palette.every((other) => far(colour, other) >= ALIKE)) palette.push(colour);
  }
  const indexOf = new Map();
  for (const colour of uses.keys()) {
    indexOf.set(colour, palette.reduce((best, other, index) => (far(colour, other) < far(colour, palette[best]) ? index : best), 0));
  }
  const lines = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) lines[y * (width + 1) + 1 + x] = indexOf.get(colourAt((y * width + x) * channels));
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // 8 bits a pixel, which are indexes into the palette.
  header.set([8, 3, 0, 0, 0], 8);
  const colours = Buffer.from(palette.flatMap(parts));
  const data = deflateSync(lines, { level: 9 });
  return Buffer.concat([SIGNATURE, chunk('IHDR', header), chunk('PLTE', colours), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))]);
}
