// Files that the page saves: masks and probabilities of a section or of all, and a table of shares.

async function save(sections, content, format, suffix) {
  const { image } = page, stem = stemOf(image);
  const part = sections.length === 1 && image.count > 1 ? `_section${String(sections[0] + 1).padStart(3, "0")}` : "";
  const name = `${stem}${part}_${suffix}`;
  try {
    const blob = await read("save", {
      sections: await reader.readable(sections.map((k) => image.results.get(k).blob)),
      content, format, threshold: readThreshold(), classes: ABOUT.classes.length,
      height: image.height, width: image.width, pixelSize: image.pixelSize,
    });
    download(blob, name);
  } catch (error) {
    if (!(error instanceof Cancelled)) sayError(error);
  }
}

function stemOf({ name }) {
  return name.replace(/(\.nii)?\.[^.]*$/i, "");
}

// Save all sections as one file: a volume in the grid of the open one, or a stack.
function saveAll(content, suffix) {
  const { image } = page, sections = Array.from({ length: image.count }, (_, k) => k);
  if (image.kind === "NIfTI") save(sections, content, "nifti", `${suffix}.nii${/gz$/i.test(image.name) ? ".gz" : ""}`);
  else save(sections, content, "tiff", `${suffix}.tif`);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say(`Saved ${name}.`);
}

// Pixels and share of each class in each section, as a table that spreadsheets open.
function makeTable() {
  const { image } = page, pixels = image.height * image.width, quote = (text) => `"${text.replaceAll('"', '""')}"`;
  const head = ["section", ...ABOUT.classes.flatMap((name) => [quote(`${name}, pixels`), quote(`${name}, share`)])];
  const rows = Array.from({ length: image.count }, (_, section) => {
    const counts = ABOUT.classes.map((_, k) => countOf(image.results.get(section), k));
    return [section + 1, ...counts.flatMap((count) => [count, count / pixels])];
  });
  return new Blob([[head, ...rows].map((row) => row.join(",") + "\r\n").join("")], { type: "text/csv" });
}
