/* A graph that one clicks together, and the gradient that flows back through it, node by node. */
"use strict";
(() => {
  const OPS = {
    add: { sign: "+", inputs: 2, f: (a, b) => a + b, back: (g) => [g, g] },
    multiply: { sign: "×", inputs: 2, f: (a, b) => a * b, back: (g, a, b) => [g * b, g * a] },
    subtract: { sign: "−", inputs: 2, f: (a, b) => a - b, back: (g) => [g, -g] },
    square: { sign: "x²", inputs: 1, f: (a) => a * a, back: (g, a) => [2 * a * g] },
    relu: { sign: "max(x, 0)", inputs: 1, f: (a) => Math.max(a, 0), back: (g, a) => [a > 0 ? g : 0] },
    sigmoid: { sign: "σ", inputs: 1, f: (a) => 1 / (1 + Math.exp(-a)), back: (g, a) => { const y = 1 / (1 + Math.exp(-a)); return [g * y * (1 - y)]; } },
  };
  const LEAVES = ["a", "b", "c"], MOST = 14;
  const root = document.getElementById("play-graph"), controls = play.element("div", { class: "controls" });
  const ops = play.element("div", { class: "row" }), row = play.element("div", { class: "row" });
  const drawing = play.svg("svg", { id: "graph-drawing", role: "group", "aria-label": "The graph" });
  const words = play.element("p", { id: "graph-words", "aria-live": "polite" });
  root.append(controls, ops, play.element("div", { class: "scroll" }, drawing), row, words);
  const sliders = LEAVES.map((name, k) => play.slider(controls, {
    id: `graph-${name}`, label: name, values: play.range(-30, 30).map((v) => v / 10), value: [2, 3, -1][k], show: (v) => play.fixed(v, 1),
  }, () => { visited = 0; update(); }));
  let nodes, chosen, visited;  // visited: how many steps of the backward pass are done
  for (const [name, { sign }] of Object.entries(OPS)) play.button(ops, `graph-${name}`, sign, () => apply(name)).setAttribute("aria-label", name);
  play.button(row, "graph-step", "One step backward", () => { visited += 1; update(); });
  play.button(row, "graph-backward", "All of it", () => { visited = nodes.length; update(); });
  play.button(row, "graph-undo", "Take the last node away", () => { if (nodes.length > LEAVES.length) nodes.pop(); chosen = []; visited = 0; update(); });
  play.button(row, "graph-new", "Begin again", begin);

  function begin() {
    nodes = LEAVES.map((name) => ({ name, inputs: [] }));
    [chosen, visited] = [[], 0];
    nodes.push({ op: "square", inputs: [0] }, { op: "multiply", inputs: [3, 1] }, { op: "add", inputs: [4, 3] });
    update();
  }

  function choose(k) {
    chosen = chosen.includes(k) ? chosen.filter((other) => other !== k) : [...chosen, k].slice(-2);
    update();
  }

  function apply(name) {
    const { inputs } = OPS[name];
    if (nodes.length >= MOST || !chosen.length) return;
    const given = inputs === 1 ? chosen.slice(-1) : chosen.length === 2 ? chosen : [chosen[0], chosen[0]];
    nodes.push({ op: name, inputs: [...given] });
    [chosen, visited] = [[nodes.length - 1], 0];
    update();
  }

  /** Return the value of each node for given values of the leaves. */
  function forward(values) {
    const found = [...values];
    nodes.slice(LEAVES.length).forEach(({ op, inputs }) => found.push(OPS[op].f(...inputs.map((k) => found[k]))));
    return found;
  }

  /** Go backward from the last node, at most so many nodes; return sums of gradients, and those on each edge. */
  function backward(values, steps) {
    const last = nodes.length - 1, gradients = nodes.map((_, k) => (k === last ? 1 : 0)), edges = new Map(), done = [];
    const reached = new Set([last]);
    for (let k = last; k >= LEAVES.length && done.length < steps; k--) {
      if (!reached.has(k)) continue;
      done.push(k);
      OPS[nodes[k].op].back(gradients[k], ...nodes[k].inputs.map((i) => values[i])).forEach((g, i) => {
        const parent = nodes[k].inputs[i];
        gradients[parent] += g;
        reached.add(parent);
        edges.set(`${k}-${i}`, g);
      });
    }
    return { gradients, edges, done, reached };
  }

  function update() {
    const leaves = sliders.map((slider) => slider.value), values = forward(leaves), back = backward(values, visited);
    const depth = [];
    nodes.forEach(({ inputs }, k) => { depth[k] = inputs.length ? 1 + Math.max(...inputs.map((i) => depth[i])) : 0; });
    const columns = [];
    depth.forEach((d, k) => { (columns[d] ||= []).push(k); });
    const tall = 78 * Math.max(3, ...columns.map((column) => column.length)), across = 118, wide = across * columns.length;
    const at = nodes.map((_, k) => {
      const column = columns[depth[k]], place = column.indexOf(k);
      return [depth[k] * across + 52, ((place + 0.5) * tall) / column.length];
    });
    const parts = [];
    nodes.forEach(({ inputs }, k) => inputs.forEach((parent, i) => {
      const [x, y] = at[parent], [u, v] = at[k], g = back.edges.get(`${k}-${i}`), past = depth[k] - depth[parent] - 1;
      // An edge that goes past other columns goes above their boxes, or below; two edges between two boxes part.
      const bend = past ? (i ? 62 : -62) : inputs.length === 2 && inputs[0] === inputs[1] ? (i ? 16 : -16) : 0;
      parts.push(play.svg("path", { class: g === undefined ? "edge" : "edge lit", d: `M${x + 42} ${y} C${x + 66} ${y + bend} ${u - 66} ${v + bend} ${u - 42} ${v + (inputs.length === 2 ? 10 * i - 5 : 0)}` }));
      if (g !== undefined) parts.push(play.svg("text", { class: "gradient", x: (x + u) / 2, y: (y + v) / 2 - 6 + 0.75 * bend, "text-anchor": "middle" }, play.fixed(g)));
    }));
    const finished = back.done.length === backward(values, nodes.length).done.length;
    nodes.forEach((node, k) => {
      const [x, y] = at[k], title = node.name || OPS[node.op].sign, known = back.reached.has(k) && visited > 0;
      const group = play.svg("g", {
        class: `node${chosen.includes(k) ? " chosen" : ""}${back.done.at(-1) === k ? " done" : ""}`, id: `graph-node-${k}`, tabindex: 0, role: "button",
        "aria-pressed": chosen.includes(k), "aria-label": `${title}, value ${play.fixed(values[k])}${known ? `, gradient ${play.fixed(back.gradients[k])}` : ""}`,
        "data-value": values[k], "data-gradient": known ? back.gradients[k] : "",
      }, play.svg("rect", { x: x - 42, y: y - 28, width: 84, height: 56, rx: node.name ? 16 : 4 }),
      play.svg("text", { x, y: y - 10, "text-anchor": "middle" }, title), play.svg("text", { x, y: y + 6, "text-anchor": "middle" }, play.fixed(values[k])));
      if (known) group.append(play.svg("text", { class: "gradient", x, y: y + 22, "text-anchor": "middle" }, `grad ${play.fixed(back.gradients[k])}`));
      group.addEventListener("click", () => choose(k));
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(k); document.getElementById(`graph-node-${k}`).focus(); } });
      parts.push(group);
    });
    drawing.setAttribute("viewBox", `0 0 ${Math.max(wide, 360)} ${tall}`);
    drawing.style.maxWidth = `${1.25 * Math.max(wide, 360)}px`;
    drawing.style.minWidth = `${0.9 * wide}px`;
    drawing.replaceChildren(...parts);
    for (const [name, { inputs }] of Object.entries(OPS)) document.getElementById(`graph-${name}`).disabled = nodes.length >= MOST || !chosen.length;
    document.getElementById("graph-step").disabled = finished;
    if (!visited) {
      words.textContent = chosen.length ? "Now choose an operation; those of two inputs take both chosen nodes, or one twice." : "Choose a node or two, and then an operation. Or go backward from the last node.";
    } else if (!finished) {
      const k = back.done.at(-1);
      words.textContent = `${nodes[k].name || OPS[nodes[k].op].sign} has sent its gradients back. A node waits until all that used its output have done so.`;
    } else {
      const quotients = leaves.map((_, i) => {
        const moved = (h) => forward(leaves.map((v, k) => v + (k === i ? h : 0))).at(-1);
        return (moved(1e-5) - moved(-1e-5)) / 2e-5;
      });
      words.textContent = `Gradients of the leaves: ${LEAVES.map((n, i) => `${n} ${play.fixed(back.gradients[i])}`).join(", ")}. Difference quotients: ${quotients.map((q, i) => `${LEAVES[i]} ${play.fixed(q)}`).join(", ")}.`;
    }
  }
  play.graph = { forward, get nodes() { return nodes; } };
  begin();
})();
