"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Half floats: all that are 0 or more, by their bits.
  const HALVES = new Float32Array(0x7c00);
  for (let bits = 0; bits < HALVES.length; bits++) {
    const exponent = bits >> 10, fraction = bits & 1023;
    HALVES[bits] = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function inflated(text) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // What pictures.packed has made, as planes of 16 bits; added to `base` where there is one.
  async function unpacked(text, width, base) {
    const bytes = await inflated(text), count = bytes.length / 2;
    const values = new Uint16Array(count);
    for (let k = 0; k < count; k++) {
      const left = k % width ? values[k - 1] : 0;
      values[k] = left + bytes[k] + (bytes[count + k] << 8);
    }
    if (base) for (let k = 0; k < count; k++) values[k] += base[k];
    return values;
  }

  async function load(picture) {
    if (!picture.before) {
      picture.before = await unpacked(picture.sdr, picture.width);
      picture.after = await unpacked(picture.hdr, picture.width, picture.before);
      picture.peak = HALVES[picture.after.reduce((most, bits) => Math.max(most, bits), 0)];
    }
    return picture;
  }

  // Tone curves: linear light, 1.0 = the screen's white, to [0, 1], in linear light too.
  const CURVES = {
    clip: () => (x) => Math.min(x, 1),
    reinhard: (peak) => {
      const white = Math.max(peak, 1);
      return (x) => Math.min((x * (1 + x / white ** 2)) / (1 + x), 1);
    },
  };

  // 8-bit sRGB (IEC 61966-2-1) for every half float.
  function table(stops, curve, peak) {
    const scale = 2 ** stops, tone = CURVES[curve](peak * scale);
    return Uint8ClampedArray.from(HALVES, (value) => {
      const x = tone(value * scale);
      return 255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
    });
  }

  const luminance = (planes, k, size) =>
    0.2126 * HALVES[planes[k]] + 0.7152 * HALVES[planes[size + k]] + 0.0722 * HALVES[planes[2 * size + k]];
  const stopsAt = (picture, k, size) =>
    Math.log2(Math.max(luminance(picture.after, k, size), 2 ** -20) / Math.max(luminance(picture.before, k, size), 2 ** -20));

  const heatEnd = Math.max(1, Math.ceil(2 * data.most) / 2);
  const state = { picture: 0, stops: -2, divider: 50, curve: "clip", mask: false };
  let moved = false; // the divider, by the person; until then it stands where most was gained

  function paint(canvas, picture, look) {
    const { width, height, before, after } = picture, size = width * height;
    const codes = table(look.stops, look.curve, picture.peak);
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height), out = image.data;
    const edge = Math.round((width * look.divider) / 100);
    for (let k = 0; k < size; k++) {
      const right = k % width >= edge, planes = right ? after : before;
      const at = 4 * k;
      out[at + 3] = 255;
      if (right && look.mask) {
        const stops = stopsAt(picture, k, size);
        if (stops >= 0.1) {
          [out[at], out[at + 1], out[at + 2]] = data.heat[Math.min(255, Math.round((255 * stops) / heatEnd))];
        } else {
          const grey = (codes[before[k]] + 2 * codes[before[size + k]] + codes[before[2 * size + k]]) / 8;
          out[at] = out[at + 1] = out[at + 2] = grey;
        }
      } else {
        out[at] = codes[planes[k]];
        out[at + 1] = codes[planes[size + k]];
        out[at + 2] = codes[planes[2 * size + k]];
      }
    }
    context.putImageData(image, 0, 0);
  }

  const signed = (stops) => (stops > 0 ? "+" : stops < 0 ? "\u2212" : "\u00b1") + Math.abs(stops).toFixed(2).replace(/0$/, "") + " stops";

  // `shown` is what the page stands at; tests wait for it.
  async function show() {
    const picture = await load(data.pictures[state.picture]);
    paint(get("view"), picture, state);
    get("line").style.left = state.divider + "%";
    get("stops").textContent = signed(state.stops);
    get("share").textContent = `${state.divider} % source`;
    get("exposure").setAttribute("aria-valuetext", signed(state.stops));
    get("divider").setAttribute("aria-valuetext", `source on the left ${state.divider} percent`);
    get("right-tag").textContent = state.mask ? "mask" : "result";
    document.querySelector(".tag.left").hidden = state.divider < 8;
    get("right-tag").hidden = state.divider > 92;
    get("legend").hidden = !state.mask;
    get("mask").setAttribute("aria-pressed", state.mask);
    document.body.dataset.shown = JSON.stringify(state);
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  }

  function choose(number) {
    state.picture = (number + data.pictures.length) % data.pictures.length;
    const picture = data.pictures[state.picture];
    if (!moved) get("divider").value = state.divider = picture.focus;
    document.querySelectorAll(".thumb").forEach((button) =>
      button.setAttribute("aria-pressed", Number(button.dataset.picture) === state.picture));
    get("alt").textContent = picture.alt;
    get("ultra-figure").hidden = !picture.ultra;
    if (picture.ultra) {
      get("ultra").src = "data:image/jpeg;base64," + picture.ultra;
      get("ultra").alt = picture.alt;
    }
    redraw();
    drawFrameCharts();
  }

  // Controls
  const stage = get("stage");
  get("exposure").addEventListener("input", (event) => { state.stops = Number(event.target.value); redraw(); });
  get("divider").addEventListener("input", (event) => { moved = true; state.divider = Number(event.target.value); redraw(); });
  get("curve").addEventListener("change", (event) => { state.curve = event.target.value; redraw(); });
  function toggleMask() { state.mask = !state.mask; redraw(); }
  function moveDivider(to) {
    moved = true;
    state.divider = to ?? (state.divider > 0 && state.divider < 100 ? 0 : state.divider === 0 ? 100 : 50);
    get("divider").value = state.divider;
    redraw();
  }
  function expose(stops) {
    state.stops = Math.min(4, Math.max(-6, stops));
    get("exposure").value = state.stops;
    redraw();
  }
  get("mask").addEventListener("click", toggleMask);
  get("flip").addEventListener("click", () => moveDivider());
  document.querySelectorAll(".thumb").forEach((button) =>
    button.addEventListener("click", () => choose(Number(button.dataset.picture))));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const key = event.key.toLowerCase();
    if (event.target.closest("input, select") && key.startsWith("arrow")) return; // a slider's own keys
    const seen = stage.getBoundingClientRect();
    if (seen.bottom < 0 || seen.top > innerHeight) return; // elsewhere arrows scroll the page
    const does = {
      arrowleft: () => choose(state.picture - 1),
      arrowright: () => choose(state.picture + 1),
      arrowup: () => expose(state.stops + 0.5),
      arrowdown: () => expose(state.stops - 0.5),
      m: toggleMask,
      d: () => moveDivider(),
    }[key];
    if (does) { event.preventDefault(); does(); }
  });

  function placeOf(event) {
    const box = get("view").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }
  function drag(event) { moveDivider(Math.round(100 * Math.min(1, Math.max(0, placeOf(event)[0])))); }
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) drag(event);
    const picture = data.pictures[state.picture];
    if (!picture.before) return;
    const [x, y] = placeOf(event).map((share, axis) => Math.floor(share * (axis ? picture.height : picture.width)));
    if (x < 0 || y < 0 || x >= picture.width || y >= picture.height) return;
    const size = picture.width * picture.height, k = y * picture.width + x;
    const nits = (planes) => (data.white * luminance(planes, k, size)).toFixed(0);
    get("readout").textContent =
      `Pixel ${x}, ${y}: source ${nits(picture.before)} nits, result ${nits(picture.after)} nits, ${signed(Math.round(100 * stopsAt(picture, k, size)) / 100)}`;
  });

  // The mask's legend
  const ramp = get("ramp").getContext("2d"), colours = ramp.createImageData(256, 1);
  data.heat.forEach((rgb, k) => colours.data.set([...rgb, 255], 4 * k));
  ramp.putImageData(colours, 0, 0);
  for (let stops = 0; stops <= heatEnd; stops += heatEnd > 3 ? 1 : 0.5) get("ticks").append(Object.assign(document.createElement("span"), { textContent: stops }));

  // True HDR
  const high = matchMedia("(dynamic-range: high)");
  function tellHdr() {
    const has = data.pictures.some((picture) => picture.ultra);
    get("hdr-state").textContent = !has
      ? "There is no HDR picture here: the page was made without imagecodecs (the extra stills)."
      : high.matches
        ? "This browser says that it has an HDR screen (dynamic-range: high). If it reads gain maps, the picture below is brighter than this page\u2019s white."
        : "This browser says that it has no HDR screen (dynamic-range: standard): the picture below is the source alone. Its HDR shows on an HDR screen.";
  }
  high.addEventListener("change", tellHdr);
  tellHdr();

  // Charts, by uPlot
  const charts = [];
  const axis = (more) => ({ stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid") }, font: "12px system-ui", ...more });
  const short = (value) => (value == null ? "" : Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString());

  function chart(id, build) {
    const host = get(id);
    if (!host) return;
    const made = charts.find((entry) => entry.host === host) ?? { host };
    if (!charts.includes(made)) charts.push(made);
    made.build = build;
    made.plot?.destroy();
    const { values, ...options } = build();
    made.plot = new uPlot({ width: Math.max(200, host.clientWidth), height: options.tall ?? 260, legend: { live: false }, cursor: { show: true, drag: { x: false, y: false } }, ...options }, values, host);
  }
  new ResizeObserver(() => charts.forEach(({ host, plot }) => {
    if (plot && Math.abs(plot.width - host.clientWidth) > 1) plot.setSize({ width: Math.max(200, host.clientWidth), height: plot.height });
  })).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(({ host, build }) => chart(host.id, build)));

  // Lines across a plot at these values of a scale.
  function lines(u, scale, values, dash) {
    const { left, top, width, height } = u.bbox, across = scale === "y";
    u.ctx.save();
    u.ctx.strokeStyle = colour("--soft");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
    u.ctx.beginPath();
    for (const value of values) {
      const at = Math.round(u.valToPos(value, scale, true));
      if (across) { u.ctx.moveTo(left, at); u.ctx.lineTo(left + width, at); }
      else { u.ctx.moveTo(at, top); u.ctx.lineTo(at, top + height); }
    }
    u.ctx.stroke();
    u.ctx.restore();
  }
  const NITS = { distr: 3, log: 10, range: () => [data.levels.low, data.levels.high] };
  const powers = (u, splits) => splits.map((value) => (Math.abs(Math.log10(value) % 1) < 1e-6 ? short(value) : null));

  function waveform(id, which) {
    chart(id, () => {
      const { count } = data.levels, bytes = bytesOf(data.pictures[state.picture][which].waveform);
      const columns = bytes.length / count, canvas = new OffscreenCanvas(columns, count);
      const context = canvas.getContext("2d"), image = context.createImageData(columns, count);
      const rgb = colour(which === "source" ? "--accent" : "--warm").match(/\w\w/g).map((pair) => parseInt(pair, 16));
      bytes.forEach((value, k) => image.data.set([...rgb, value && 40 + value * 0.84], 4 * k));
      context.putImageData(image, 0, 0);
      return {
        values: [[0, 100], [null, null]],
        scales: { x: { time: false }, y: NITS },
        axes: [axis({ values: (u, splits) => splits.map((value) => value + " %"), label: "across the picture", labelSize: 18, space: 60 }), axis({ values: powers, size: 56, label: "nits", labelSize: 18 })],
        series: [{}, { show: true }],
        legend: { show: false },
        cursor: { show: false },
        hooks: { draw: [(u) => {
          u.ctx.drawImage(canvas, u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
          lines(u, "y", [data.white], [4, 4]);
        }] },
      };
    });
  }

  function drawFrameCharts() {
    waveform("wave-source", "source");
    waveform("wave-result", "result");
    chart("histogram", () => {
      const { count, low, high: end } = data.levels, picture = data.pictures[state.picture];
      const nits = Array.from({ length: count }, (_, k) => low * (end / low) ** ((k + 0.5) / count));
      const some = (values) => values.map((value) => (value > 0 ? value : null));
      const stepped = uPlot.paths.stepped({ align: 0 });
      return {
        values: [nits, some(picture.source.histogram), some(picture.result.histogram)],
        scales: { x: { ...NITS, time: false }, y: { distr: 3, range: (u, least, most) => [0.001, 100] } },
        axes: [axis({ values: powers, label: "nits", labelSize: 18 }), axis({ values: powers, size: 56, label: "% of the pixels", labelSize: 18 })],
        series: [
          { label: "nits" },
          { label: "source", stroke: colour("--accent"), width: 2, paths: stepped, points: { show: false } },
          { label: "result", stroke: colour("--warm"), width: 2, dash: [6, 3], paths: stepped, points: { show: false } },
        ],
        legend: { live: false, markers },
        hooks: { draw: [(u) => lines(u, "x", [data.white], [4, 4])] },
      };
    });
  }

  const markers = { dash: (u, series) => (u.series[series].dash ? "dashed" : "solid") };
  const over = data.light;
  const told = (u, value) => short(value);
  const frames = (u, splits) => splits.map((value) => (Number.isInteger(value) ? value : ""));
  function drawClipCharts() {
    const line = (label, stroke, dash) => ({ label, value: told, stroke: colour(stroke), width: 2, dash, points: { show: over.frames.length < 3 } });
    const at = { x: { time: false } };
    const marks = (u) => { lines(u, "x", data.cuts, [4, 4]); lines(u, "x", data.places, [10, 4]); };
    chart("light", () => ({
      values: [over.frames, over.result_max, over.result_mean, over.source_max, over.source_mean].map((values, k) => (k ? values.map((value) => Math.max(value, 0.01)) : values)),
      scales: { ...at, y: { distr: 3 } },
      axes: [axis({ values: frames, label: "frame", labelSize: 18 }), axis({ values: powers, size: 56, label: "nits", labelSize: 18 })],
      series: [{ label: "frame", value: told }, line("result, brightest", "--warm"), line("result, mean", "--warm", [6, 3]), line("source, brightest", "--accent"), line("source, mean", "--accent", [6, 3])],
      legend: { live: true, markers },
      hooks: { draw: [(u) => {
        marks(u);
        u.ctx.fillStyle = colour("--ink");
        for (const number of data.trained) {
          const x = u.valToPos(number, "x", true);
          u.ctx.fillRect(x - devicePixelRatio / 2, u.bbox.top + u.bbox.height - 8 * devicePixelRatio, devicePixelRatio, 8 * devicePixelRatio);
        }
      }] },
    }));
    chart("gain", () => ({
      tall: 220,
      values: [over.frames, over.clipped, over.gained, over.most],
      scales: { ...at, "%": { range: (u, least, most) => [0, Math.max(1, most * 1.1)] }, stops: { range: (u, least, most) => [0, Math.max(1, Math.ceil(most))] } },
      axes: [axis({ values: frames, label: "frame", labelSize: 18 }), axis({ scale: "%", size: 56, label: "clipped, %", labelSize: 18 }), axis({ scale: "stops", side: 1, grid: { show: false }, label: "stops gained", labelSize: 18 })],
      series: [{ label: "frame", value: told }, { ...line("clipped, %", "--accent"), scale: "%" }, { ...line("stops, mean", "--warm", [6, 3]), scale: "stops" }, { ...line("stops, most", "--warm"), scale: "stops" }],
      legend: { live: true, markers },
      hooks: { draw: [marks] },
    }));
    const losses = data.losses;
    if (losses.epoch.length) chart("losses", () => ({
      values: [losses.epoch, losses.total, losses.reconstruction, losses.temporal].map((values, k) => (k ? values.map((value) => (value > 0 ? value : null)) : values)),
      scales: { ...at, y: { distr: 3 } },
      axes: [axis({ values: frames, label: "epoch", labelSize: 18 }), axis({ size: 64, values: (u, splits) => splits.map((value) => (value == null ? "" : Number(value.toPrecision(2)).toString())) })],
      series: [{ label: "epoch", value: told }, line("total", "--ink"), line("reconstruction", "--accent", [6, 3]), line("temporal", "--warm", [2, 3])],
      legend: { live: true, markers },
      hooks: { draw: [(u) => {
        lines(u, "x", data.second_rounds.map((epoch) => epoch + 0.5), [4, 4]);
        lines(u, "x", data.networks.map((epoch) => epoch + 0.5), [10, 4]);
      }] },
    }));
  }

  drawClipCharts();
  choose(0);
  (async () => {
    for (const [number, picture] of data.pictures.entries()) {
      const canvas = document.querySelector(`.thumb[data-picture="${number}"] canvas`);
      paint(canvas, await load(picture), { stops: 0, curve: "clip", divider: 100, mask: false });
    }
    document.body.dataset.ready = "yes";
  })();
})();
