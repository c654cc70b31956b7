// The page: which image is open, which section of it is shown, what is being computed, and all that can be pressed.

const RADIO = 'input[name="view"]';

// What is open. `image` holds its files, [{blob, name}], what the worker found in them, and `results`: for a section's
// number {blob, counts, tile}, all computed with `scale`.
const page = {
  image: null, section: 0, picture: null, pictureOf: "", probabilities: null, zoom: 0, job: null,
  scale: ABOUT.scale, // the last one in its field that was one
};
let reader = new Helper(); // decodes sections for the screen, and writes files
let crew = []; // run the network

const get = (id) => document.getElementById(id);
const say = (text) => { get("status").textContent = text; };

function sayError(error) {
  get("error").textContent = error ? error.message : "";
  get("error").hidden = !error;
}

// ---- opening an image

async function openFiles(files) {
  const name = files.length > 1 ? commonName(files.map((file) => file.name)) : files[0].name;
  const turn = (page.opening = {});
  sayError(null);
  say(`Reading ${name} …`);
  try {
    if (!reader.worker) reader = new Helper(); // the last one failed
    const found = await reader.openFiles(files);
    if (page.opening !== turn) return;
    stopWork();
    page.image = { files, name, ...found, results: new Map(), scale: page.scale, statistics: undefined };
    reader.image = page.image;
  } catch (error) {
    if (page.opening !== turn || error instanceof Cancelled) return;
    sayError(error);
    say(page.image ? `${page.image.name} is still open.` : "Choose another image.");
    reader.image = null;
    return;
  }
  [page.section, page.probabilities, page.pictureOf] = [0, null, ""];
  document.body.classList.add("opened");
  get("viewer").hidden = get("controls").hidden = false;
  const { count, height, width, dtype, kind } = page.image;
  const sections = count > 1 ? `${count} sections of ` : "";
  get("of-file").textContent = `${name}: ${kind}, ${sections}${height} × ${width} pixels, ${dtype}.`;
  get("section").max = count;
  get("stack").hidden = get("save-stack").hidden = count === 1;
  get("save-mask-tiff").hidden = count > 1 || kind === "NIfTI";
  get("save-masks").textContent = kind === "NIfTI" ? "Labels, NIfTI" : "Masks, TIFF";
  get("save-probabilities").textContent = kind === "NIfTI" ? "Probabilities, NIfTI" : "Probabilities, TIFF";
  get("of-stack").hidden = count === 1;
  get("of-section").textContent = count > 1 ? "Section" : "";
  zoomTo(0);
  await refresh();
  segment([page.section]);
}

// What the names of a volume's files begin with.
function commonName(names) {
  let length = 0;
  while (names[0][length] && names.every((name) => name[length] === names[0][length])) length++;
  const stem = names[0].slice(0, length).replace(/[^a-z0-9]+[a-z]?$/i, "");
  return `${stem || "volume"}.nii${/gz$/i.test(names[0]) ? ".gz" : ""}`;
}

// Ask the worker that has the image open.
async function read(task, given) {
  if (!reader.worker) reader = new Helper();
  await reader.open(page.image);
  return reader.call(task, given);
}

// Bring the chosen section to the screen. While one is being read, only the newest choice is read next.
async function refresh() {
  showState();
  if (page.refreshing) {
    page.again = true;
    return;
  }
  page.refreshing = true;
  do {
    page.again = false;
    const { image, section } = page, result = image.results.get(section), channel = Number(get("channel").value) || 0;
    const which = `${section} ${channel}`;
    try {
      if (page.pictureOf !== which) {
        const { grey, colour, notes } = await read("picture", { k: section, channel });
        if (image !== page.image) continue;
        page.picture = grey;
        if (colour) notes.unshift("It is in colour: its grey values are used.");
        get("notes").textContent = notes.join(" ");
      }
      const probabilities = result ? new Float32Array(await result.blob.arrayBuffer()) : null;
      if (image !== page.image) continue;
      [page.pictureOf, page.probabilities] = [which, probabilities];
      if (section === page.section) draw();
    } catch (error) {
      if (image === page.image && !(error instanceof Cancelled)) sayError(error);
    }
  } while (page.again);
  page.refreshing = false;
  showState();
}

function draw() {
  if (!page.image || !page.picture) return;
  paint(get("canvas"), page.image, page.picture, page.probabilities, {
    view: document.querySelector(`${RADIO}:checked`).value,
    threshold: readThreshold(),
    opacity: Number(get("opacity").value),
    shownClass: Number(get("class").value),
  });
  get("canvas").setAttribute("aria-label", describePicture());
  layOut();
}

function describePicture() {
  const { image, section, probabilities } = page, view = document.querySelector(`${RADIO}:checked`).value;
  const part = image.count > 1 ? `, section ${section + 1} of ${image.count}` : "";
  return `${image.name}${part}: ${view}${probabilities ? "" : ", not segmented yet"}`;
}

// ---- what is shown beside the picture

const nameOf = (k) => (page.image.count > 1 ? `Section ${k + 1}` : page.image.name);
const readThreshold = () => Math.round(Number(get("threshold").value) * 100) / 100;

function showState() {
  const { image, section, job } = page;
  get("work").hidden = !job;
  if (!image) return;
  get("section").value = section + 1;
  get("section").setAttribute("aria-valuetext", `section ${section + 1} of ${image.count}`);
  get("where").textContent = `${section + 1} of ${image.count}`;
  get("previous").disabled = section === 0;
  get("next").disabled = section === image.count - 1;
  const segmented = image.results.has(section), all = image.results.size === image.count;
  get("run").hidden = segmented || Boolean(job);
  get("run").textContent = image.count > 1 ? "Segment this section" : "Segment this image";
  get("run-all").hidden = image.count === 1 || all || (job && job.sections.length > 1);
  get("run-all").textContent = `Segment all ${image.count} sections`;
  for (const id of ["save-mask", "save-mask-tiff", "save-probability"]) get(id).disabled = !segmented;
  for (const id of ["save-masks", "save-probabilities", "save-table"]) get(id).disabled = !all;
  get("save-note").hidden = all;
  showShares();
}

// The share of each class, of this section and of all that are segmented.
function showShares() {
  const { image, section } = page, pixels = image.height * image.width, result = image.results.get(section);
  get("shares").replaceChildren(...ABOUT.classes.map((name, k) => {
    const [row, head, swatch] = ["tr", "th", "span"].map((tag) => document.createElement(tag));
    head.scope = "row";
    swatch.className = "swatch";
    swatch.style.background = colourOf(k) ? `rgb(${colourOf(k)})` : "transparent";
    head.append(swatch, name);
    row.append(head, cell(result ? countOf(result, k) / pixels : null));
    if (image.count > 1) {
      let count = 0;
      for (const each of image.results.values()) count += countOf(each, k);
      row.append(cell(image.results.size ? count / pixels / image.results.size : null));
    }
    return row;
  }));
  get("stack-note").hidden = image.count === 1 || image.results.size === image.count;
  get("stack-note").textContent = `Stack: ${image.results.size} of ${image.count} sections are segmented.`;
}

function cell(share) {
  const found = document.createElement("td");
  found.textContent = share === null ? "–" : `${(100 * share).toFixed(2)} %`;
  return found;
}

// Pixels of class k; of a network of one class, those above the threshold.
function countOf({ counts }, k) {
  return ABOUT.classes.length > 1 ? counts[k] : counts[Math.round(readThreshold() * 100)];
}

// ---- settings

function readScale() {
  const rows = Number(get("scale").value);
  return [rows, get("scale-columns-label").hidden ? rows : Number(get("scale-columns").value)];
}

// Take another scale: what was computed with the old one is not shown any more.
function changeScale() {
  const scale = readScale(), fits = scale.every((s) => s >= 0.001 && s <= 1000);
  const training = ABOUT.scale.join(" and ");
  sayError(fits ? null : new Error(`The scale must be from 0.001 to 1000. That of the training is ${training}.`));
  if (fits) page.scale = scale;
  if (!fits || !page.image || String(scale) === String(page.image.scale)) return;
  stopWork();
  Object.assign(page.image, { scale, results: new Map(), statistics: undefined });
  [page.probabilities, page.failed] = [null, false];
  draw();
  refresh();
  showMissing();
}

// ---- zoom

function zoomTo(zoom) {
  page.zoom = zoom && Math.min(Math.max(zoom, 1 / 16), 16);
  get("fit").setAttribute("aria-pressed", String(!zoom));
  get("one").setAttribute("aria-pressed", String(zoom === 1));
  layOut();
}

// The whole picture fits into its frame, and the frame with the stack's slider into the window.
function fitting() {
  const [height, width] = shownSize(page.image);
  return Math.min(get("stage").clientWidth / width, roomForStage() / height);
}

function roomForStage() {
  if (innerWidth < 896) return 0.8 * innerHeight; // then everything is in one column, which scrolls
  return Math.max(innerHeight - get("stage").getBoundingClientRect().top - scrollY - 130, 240);
}

function layOut() {
  if (!page.image) return;
  const stage = get("stage"), canvas = get("canvas"), zoom = page.zoom || fitting();
  stage.style.maxHeight = `${roomForStage()}px`;
  const [height, width] = shownSize(page.image);
  canvas.style.width = `${Math.max(1, Math.floor(width * zoom))}px`;
  canvas.style.height = `${Math.max(1, Math.floor(height * zoom))}px`;
  canvas.classList.toggle("pixels", zoom >= 2);
  stage.classList.toggle("pans", stage.scrollWidth > stage.clientWidth || stage.scrollHeight > stage.clientHeight);
}
