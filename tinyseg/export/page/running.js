// Running the network on sections of the open image: its workers, its progress, its end.

// Run the network on sections of the open image, after ending what runs.
async function segment(sections) {
  stopWork();
  const { image } = page, { scale, results } = image, memory = memoryLimit();
  const job = (page.job = { sections, done: 0, begin: performance.now(), parts: new Map(), seconds: 0, said: 0 });
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
        const [k] = waiting.splice(Math.max(waiting.indexOf(page.section), 0), 1); // the one that is looked at first
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

// Bytes for the network: a quarter of what the browser says that the device has. If it does not say it, a phone is
// taken to have 2 GB, and another device 4 GB.
function memoryLimit() {
  const has = navigator.deviceMemory || (matchMedia("(pointer: coarse)").matches ? 2 : 4);
  const chosen = Number(get("memory").value) || Math.min(has / 4, 2);
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
    // A run that takes longer than was guessed comes near to its end, and does not reach it.
    done += part.all > 1 ? part.done / part.all : guess < 0.8 ? guess : 1 - 0.2 * Math.exp(5 * (0.8 - guess));
  }
  const share = done / job.sections.length, passed = (performance.now() - job.begin) / 1000;
  get("progress").value = share;
  const left = share > 0.02 ? (passed * (1 - share)) / share : 0, many = job.sections.length > 1;
  if (left > 2 && performance.now() - job.said > 2000) { // not more often: it is read aloud
    const [first] = job.sections;
    const what = many ? `Segmented ${job.done} of ${job.sections.length} sections` : `Segmenting ${nameOf(first)}`;
    say(`${what}, about ${Math.ceil(left)} s left.`);
    job.said = performance.now();
  }
  setTimeout(() => showProgress(job), 100);
}
