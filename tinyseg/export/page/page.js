// The page: which image is open, which section of it is shown, what is being computed, and all that can be pressed.

const RADIO = 'input[name="view"]';

// What is open. `image` holds its files, [{blob, name}], what the worker found in them, and `results`: for a section's
// number {blob, counts, tile}, all computed with `scale`.
const page = { image: null, section: 0, picture: null, pictureOf: "", probabilities: null, zoom: 0, shrunk: 1, job: null };
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
    const found = await reader.call("open", { files, channels: ABOUT.channels, names: ABOUT.names });
    if (page.opening !== turn) return;
    stopWork();
    page.image = { files, name, ...found, results: new Map(), scale: readScale(), statistics: undefined };
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
  get("of-file").textContent = `${name}: ${kind}, ${count > 1 ? `${count} sections of ` : ""}${height} × ${width} pixels, ${dtype}.`;
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
  return `${names[0].slice(0, length).replace(/[^a-z0-9]*[a-z]?$/i, "") || "volume"}.nii${/gz$/.test(names[0]) ? ".gz" : ""}`;
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
        get("notes").textContent = [...(colour ? ["It is in colour: its grey values are used."] : []), ...notes].join(" ");
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
  page.shrunk = paint(get("canvas"), page.image, page.picture, page.probabilities, {
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

// ---- the network

// Run the network on sections of the open image, after ending what runs.
async function segment(sections) {
  stopWork();
  const { image } = page, { scale, results } = image, memory = memoryLimit();
  const job = (page.job = { sections, done: 0, begin: performance.now(), parts: new Map(), seconds: 0 });
  const many = sections.length > 1;
  say(many ? `Segmenting ${sections.length} sections …` : `Segmenting ${nameOf(sections[0])} …`);
  sayError(null);
  showState();
  showProgress(job);
  try {
    const first = await hire(0, image);
    const { secondsPerPixel } = await first.load();
    job.seconds = secondsPerPixel * image.height * image.width * scale[0] * scale[1];
    const measuring = (done, all) => say(`Measuring section ${done} of ${all} …`);
    if (image.statistics === undefined) image.statistics = await first.call("statistics", { scale }, measuring);
    const helpers = many ? crewSize(sections.length, await first.call("memory", { scale }), memory) : 1;
    const waiting = [...sections], options = { scale, statistics: image.statistics, memory };
    const work = async (number) => {
      const helper = await hire(number, image);
      while (waiting.length && page.job === job) {
        const k = waiting.shift();
        job.parts.set(k, { begin: performance.now(), done: 0, all: 1 });
        const progress = (done, all) => Object.assign(job.parts.get(k) || {}, { done, all });
        const { probabilities, counts, tile } = await helper.call("predict", { k, options }, progress);
        if (page.job !== job) return;
        results.set(k, { blob: new Blob([probabilities]), counts, tile });
        job.seconds = (performance.now() - job.parts.get(k).begin) / 1000;
        job.parts.delete(k);
        job.done++;
        if (k === page.section) refresh();
        showShares();
      }
    };
    await Promise.all(Array.from({ length: helpers }, (_, number) => work(number)));
    if (page.job === job) finish(job);
  } catch (error) {
    if (page.job !== job) return;
    stopWork();
    page.failed = true;
    sayError(error);
    say(`${nameOf(page.section)} was not segmented.`);
    showState();
  }
}

function finish(job) {
  page.job = null;
  crew.splice(1).forEach((helper) => helper.stop());
  const seconds = (performance.now() - job.begin) / 1000, last = job.sections[job.sections.length - 1];
  const { tile } = page.image.results.get(last);
  const what = job.sections.length > 1 ? `${job.sections.length} sections` : nameOf(last);
  const about = tile
    ? ` The image was too large for the memory and went through the network in tiles of ${tile} × ${tile} pixels` +
          `${ABOUT.groupNorm ? ", each normalized by itself: the result can differ from that of the whole image" : ""}.`
    : "";
  say(`${what}: segmented in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.${about}`);
  showState();
  showMissing();
}

// End what is computed. A worker cannot be interrupted, so it is ended too; the next one loads the network anew.
function stopWork() {
  if (!page.job) return;
  page.job = null;
  page.failed = false;
  crew.forEach((helper) => helper.stop());
  crew = [];
  showState();
}

// Return a worker that knows the network and has opened the image.
async function hire(number, image) {
  if (!crew[number]?.worker) crew[number] = new Helper();
  const helper = crew[number];
  await helper.load();
  if (image) await helper.open(image);
  return helper;
}

// How many workers share the sections of a stack: half of the cores, and as many as have room in the memory.
function crewSize(sections, need, memory) {
  const cores = Math.floor((navigator.hardwareConcurrency || 2) / 2);
  return Math.max(1, Math.min(sections, cores, 4, Math.floor(memory / need)));
}

// Bytes for the network: a quarter of what the browser says that the device has, 1 GB if it does not say it.
function memoryLimit() {
  const chosen = Number(get("memory").value) || Math.min((navigator.deviceMemory || 4) / 4, 2);
  return chosen * 2 ** 30;
}

// Segment the section that is shown, if it is not yet and nothing else runs; a moment later, so that one can scroll.
function showMissing() {
  clearTimeout(page.soon);
  page.soon = setTimeout(() => {
    if (page.image && !page.job && !page.failed && !page.image.results.has(page.section)) segment([page.section]);
  }, 250);
}

function showProgress(job) {
  if (page.job !== job) return;
  let done = job.done;
  for (const part of job.parts.values()) {
    const guess = (performance.now() - part.begin) / 1000 / (job.seconds || 1);
    done += part.all > 1 ? part.done / part.all : Math.min(guess, 0.95);
  }
  const share = done / job.sections.length, passed = (performance.now() - job.begin) / 1000;
  get("progress").value = share;
  const left = share > 0 ? (passed * (1 - share)) / share : 0;
  get("progress").title = left > 2 ? `about ${Math.ceil(left)} s left` : "";
  if (job.sections.length > 1 && job.done) say(`Segmented ${job.done} of ${job.sections.length} sections, about ${Math.ceil(left)} s left.`);
  setTimeout(() => showProgress(job), job.sections.length > 1 ? 500 : 100);
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
    const row = document.createElement("tr"), head = document.createElement("th"), swatch = document.createElement("span");
    head.scope = "row";
    swatch.className = "swatch";
    swatch.style.background = colourOf(k) ? `rgb(${colourOf(k)})` : "transparent";
    head.append(swatch, name);
    row.append(head, cell(result && countOf(result, k) / pixels));
    if (image.count > 1) {
      let count = 0;
      for (const each of image.results.values()) count += countOf(each, k);
      row.append(cell(image.results.size && count / pixels / image.results.size));
    }
    return row;
  }));
  get("stack-note").hidden = image.count === 1 || image.results.size === image.count;
  get("stack-note").textContent = `Stack: ${image.results.size} of ${image.count} sections are segmented.`;
}

function cell(share) {
  const found = document.createElement("td");
  found.textContent = typeof share === "number" && share >= 0 && page.image.results.size ? `${(100 * share).toFixed(2)} %` : "–";
  return found;
}

// Pixels of class k; of a network of one class, those above the threshold.
function countOf({ counts }, k) {
  return ABOUT.classes.length > 1 ? counts[k] : counts[Math.round(readThreshold() * 100)];
}

// ---- saving

async function save(sections, content, format, suffix) {
  const { image } = page, stem = stemOf(image);
  const part = sections.length === 1 && image.count > 1 ? `_section${String(sections[0] + 1).padStart(3, "0")}` : "";
  const name = `${stem}${part}_${suffix}`;
  try {
    const blob = await read("save", {
      sections: sections.map((k) => image.results.get(k).blob),
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

// ---- settings

function readScale() {
  const rows = Number(get("scale").value);
  return [rows, get("scale-columns-label").hidden ? rows : Number(get("scale-columns").value)];
}

// Take another scale: what was computed with the old one is not shown any more.
function changeScale() {
  const scale = readScale(), fits = scale.every((s) => s >= 0.001 && s <= 1000);
  sayError(fits ? null : new Error(`The scale must be from 0.001 to 1000. That of the training is ${ABOUT.scale.join(" and ")}.`));
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
