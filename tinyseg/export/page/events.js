// What happens when something is chosen, dropped, pressed or moved.

function go(section) {
  const { image } = page;
  if (!image || section < 0 || section >= image.count || section === page.section) return;
  page.section = section;
  page.failed = false;
  refresh();
  showMissing();
}

function openChosen(files) {
  const [file, ...others] = files, named = files.map((blob) => ({ blob, name: blob.name || "image.png" }));
  if (!file) return;
  if (ABOUT.channels > 1 && others.length) {
    openFiles(named);
    return;
  }
  openFiles(named.slice(0, 1));
  if (others.length) sayError(new Error(`One file at a time: ${file.name} is opened, the other ${others.length} are not.`));
}

function listen() {
  const on = (id, event, action) => get(id).addEventListener(event, action);

  for (const id of ["file", "camera"]) {
    on(id, "change", ({ target }) => {
      openChosen([...target.files]);
      target.value = ""; // so that the same file can be chosen again
    });
  }
  on("example", "click", () => openFiles([{ blob: exampleImage(), name: ABOUT.example }]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    openChosen([...event.dataTransfer.files]);
  });
  addEventListener("paste", ({ clipboardData }) => openChosen([...clipboardData.files]));

  on("section", "input", ({ target }) => go(Number(target.value) - 1));
  on("previous", "click", () => go(page.section - 1));
  on("next", "click", () => go(page.section + 1));
  on("views", "change", draw);
  on("class", "change", draw);
  on("channel", "change", refresh);
  on("opacity", "input", ({ target }) => {
    get("opacity-value").textContent = Number(target.value).toFixed(2);
    draw();
  });
  on("threshold", "input", () => {
    get("threshold-value").textContent = readThreshold().toFixed(2);
    draw();
    if (page.image) showShares();
  });
  on("run", "click", () => segment([page.section]));
  on("run-all", "click", () => {
    const { image } = page;
    segment(Array.from({ length: image.count }, (_, k) => k).filter((k) => !image.results.has(k)));
  });
  on("cancel", "click", cancel);

  on("save-mask", "click", () => save([page.section], "mask", "png", "mask.png"));
  on("save-mask-tiff", "click", () => save([page.section], "mask", "tiff", "mask.tif"));
  on("save-probability", "click", () => save([page.section], "probability", "tiff", "probability.tif"));
  on("save-masks", "click", () => saveAll("mask", "mask"));
  on("save-probabilities", "click", () => saveAll("probability", "probability"));
  on("save-table", "click", () => download(makeTable(), `${stemOf(page.image)}_shares.csv`));
  on("save-view", "click", () => {
    const name = `${stemOf(page.image)}_view.png`;
    get("canvas").toBlob((blob) => download(blob, name));
  });

  on("scale", "change", changeScale);
  on("scale-columns", "change", changeScale);
  on("memory", "change", () => {
    if (!page.image) return;
    const tiled = [...page.image.results].filter(([, { tile }]) => tile); // those may be computed as a whole now
    tiled.forEach(([k]) => page.image.results.delete(k));
    refresh();
    showMissing();
  });

  on("fit", "click", () => zoomTo(0));
  on("one", "click", () => zoomTo(1));
  on("in", "click", () => page.image && zoomTo((page.zoom || fitting()) * 1.5));
  on("out", "click", () => page.image && zoomTo((page.zoom || fitting()) / 1.5));
  addEventListener("resize", layOut);
  listenToDragging(get("stage"));
  addEventListener("keydown", press);
}

// A mouse moves a picture that is larger than its frame; fingers do it by themselves.
function listenToDragging(stage) {
  let from = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button) return;
    from = [event.clientX + stage.scrollLeft, event.clientY + stage.scrollTop];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (from) stage.scrollTo(from[0] - event.clientX, from[1] - event.clientY);
  });
  stage.addEventListener("pointerup", () => { from = null; });
  stage.addEventListener("pointercancel", () => { from = null; });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !page.image) return;
  if (event.key === "Escape" && page.job) cancel();
  if (event.target.closest("input, select, textarea, summary")) return; // these have arrows of their own
  const last = page.image.count - 1;
  const to = {
    ArrowLeft: page.section - 1, ArrowRight: page.section + 1, PageUp: page.section - 1, PageDown: page.section + 1,
    Home: 0, End: last,
  }[event.key];
  if (to === undefined || last === 0) return;
  event.preventDefault();
  go(to);
}

function cancel() {
  const { sections, done } = page.job;
  stopWork();
  page.failed = true; // what was cancelled does not begin by itself again
  say(sections.length > 1 ? `Cancelled after ${done} of ${sections.length} sections.` : "Cancelled.");
  showState();
}

function exampleImage() {
  const bytes = Uint8Array.from(atob(get("example-image").textContent), (letter) => letter.charCodeAt(0));
  return new File([bytes], ABOUT.example, { type: "image/png" });
}

function begin() {
  const [rows, columns] = ABOUT.scale, one = ABOUT.classes.length === 1;
  get("scale").value = rows;
  get("scale-columns").value = columns;
  get("scale-columns-label").hidden = rows === columns;
  get("scale-part").hidden = Boolean(ABOUT.brain);
  if (ABOUT.channels > 1) {
    get("file").multiple = true;
    get("file").accept = ".nii,.gz";
    get("camera-label").hidden = true;
    get("invitation").textContent = "Drop the scans of a brain here, or";
    get("formats").textContent = `NIfTI (.nii, .nii.gz): one file with ${ABOUT.names.join(", ")}, or a file for each`;
  }
  get("channel-label").hidden = ABOUT.channels === 1;
  get("channel").replaceChildren(...ABOUT.names.map((name, k) => new Option(name, k)));
  get("scale-help").textContent =
    `That of the training is ${rows === columns ? rows : `${rows} and ${columns}`}. If the pixels of your image are ` +
    "half as large as those of the training’s, take half of it.";
  get("threshold-label").hidden = !one;
  get("class-label").hidden = one;
  get("class").replaceChildren(...ABOUT.classes.map((name, k) => new Option(name, k)));
  get("example").hidden = !ABOUT.example;
  get("about-network").open = innerWidth > 900;
  listen();
  hire(0, null).then(() => { if (!page.image) say("The network is ready."); }, (error) => {
    if (error instanceof Cancelled) return;
    sayError(error);
    say("");
  });
}

begin();
