// Pictures that the browser decodes: JPEG, WebP, BMP and others. Needs images.js.

// Open a JPEG, WebP, BMP, ... through the browser. Its colours are taken as they are stored, without colour profiles.
async function openPicture(blob, image) {
  let content = blob;
  let orientation = 1;
  if (image.kind === "JPEG") {
    const header = jpegHeader(new Uint8Array(await blob.arrayBuffer()));
    refuseLarge(header.height, header.width, 4, blob.size, Infinity);
    ({ orientation, pixelSize: image.pixelSize } = header);
    content = new Blob([await joined(header.parts)], { type: "image/jpeg" });
  }
  const { width, height, data } = await shownPixels(content, image.kind);
  const { grey, colour } = greyOf(data, 4, true, "uint8");
  const pixels = oriented(grey, height, width, orientation);
  const turned = orientation >= 5;
  if (turned && image.pixelSize) [image.pixelSize.x, image.pixelSize.y] = [image.pixelSize.y, image.pixelSize.x];
  Object.assign(image, { height: turned ? width : height, width: turned ? height : width, dtype: "uint8", colour });
  image.section = async () => [pixels.slice()];
}

// Return the pixels, {width, height, data: RGBA}, of a picture that the browser can show.
async function shownPixels(blob, kind) {
  if (typeof createImageBitmap === "undefined" || typeof OffscreenCanvas === "undefined") {
    refuse(
      `holds ${kind}, which only a browser of this decade decodes. Save it as PNG, or as TIFF with LZW or deflate.`,
    );
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch (error) {
    if (kind === "JPEG" || kind === "BMP") damaged("the browser cannot decode it");
    refuse(`is ${kind}, of a kind that this browser does not decode, or damaged: save it as PNG or JPEG.`);
  }
  try {
    refuseLarge(bitmap.height, bitmap.width, 4, blob.size, Infinity);
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    refuseHiddenPixels();
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

// Raise an error if the browser gives other pixels than were drawn: some do so, lest a page recognizes them.
function refuseHiddenPixels() {
  const context = new OffscreenCanvas(32, 32).getContext("2d", { willReadFrequently: true });
  const drawn = new ImageData(
    Uint8ClampedArray.from({ length: 4096 }, (_, i) => (i % 4 === 3 ? 255 : (i * i) % 251)),
    32,
  );
  context.putImageData(drawn, 0, 0);
  const found = context.getImageData(0, 0, 32, 32).data;
  if (found.every((value, i) => value === drawn.data[i])) return;
  refuse(
    "is decoded by the browser, and this browser changes the pixels that a page may see (a protection against " +
      "fingerprinting): switch that off for this page, or save the picture as PNG or TIFF.",
  );
}

// Return parts as one array of bytes; Firefox decodes no picture in a blob of several parts.
async function joined(parts) {
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Return what a JPEG says before its pixels, and its parts without EXIF, which not all browsers treat alike.
function jpegHeader(bytes) {
  const found = { height: 0, width: 0, orientation: 1, pixelSize: null, parts: [bytes.subarray(0, 2)] };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    const end = at + 2 + view.getUint16(at + 2);
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === 0xda || end > bytes.length || end < at + 4) break; // the pixels follow
    const body = bytes.subarray(at + 4, end);
    const text = String.fromCharCode(...body.subarray(0, 6));
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && body.length >= 5) {
      found.height = view.getUint16(at + 5);
      found.width = view.getUint16(at + 7);
    }
    if (marker === 0xe0 && text.startsWith("JFIF\0") && body.length >= 12) {
      const unit = { 1: "inch", 2: "cm" }[body[7]];
      const x = view.getUint16(at + 12);
      const y = view.getUint16(at + 14);
      if (unit && x && y) found.pixelSize = { x: 1 / x, y: 1 / y, unit };
    }
    if (marker === 0xe1) {
      if (text === "Exif\0\0" && found.orientation === 1) found.orientation = orientationOf(body.subarray(6));
    } else {
      found.parts.push(bytes.subarray(at, end));
    }
    at = end;
  }
  if (!found.height) damaged("it does not say how large it is");
  let end = bytes.length - 2;
  while (end > at && !(bytes[end] === 0xff && bytes[end + 1] === 0xd9)) end--;
  if (end <= at) damaged("it ends before its pixels do"); // browsers would show what there is
  found.parts.push(bytes.subarray(at));
  return found;
}
