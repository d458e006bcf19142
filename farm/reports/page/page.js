// What a reader does with the page: filter, sort, links to a cell, charts. The data and the chart
// library are unpacked when first needed. Nothing here leaves the page.
"use strict";
(() => {
  const one = (selector, place = document) => place.querySelector(selector);
  const all = (selector, place = document) => [...place.querySelectorAll(selector)];

  async function unpacked(block) {
    const bytes = Uint8Array.from(atob(block.textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const once = (make) => {
    let made;
    return () => (made ??= make());
  };
  const data = once(async () => JSON.parse(await unpacked(one("#data"))));
  const library = once(async () => {
    for (const block of all("script.library")) {
      const script = document.createElement("script");
      script.textContent = await unpacked(block);
      document.head.append(script);
    }
    return window.Bokeh.Plotting;
  });

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

  function figure(plotting, options) {
    const drawn = plotting.figure({
      sizing_mode: "stretch_width", height: 190, tools: "", toolbar_location: null, ...options,
    });
    const text = colour("quiet"), line = colour("line");
    drawn.background_fill_color = drawn.border_fill_color = colour("card");
    drawn.outline_line_color = line;
    for (const axis of [...drawn.above, ...drawn.below, ...drawn.left, ...drawn.right]) {
      Object.assign(axis, {
        axis_label_text_color: text, major_label_text_color: text, axis_line_color: line,
        major_tick_line_color: line, minor_tick_line_color: null,
      });
    }
    for (const grid of drawn.center) Object.assign(grid, { grid_line_color: line });
    return drawn;
  }

  // Legends come with what is drawn, so they are coloured last.
  function show(plotting, drawn, target) {
    for (const one of drawn.center) {
      if (!("label_text_color" in one)) continue;
      Object.assign(one, {
        label_text_color: colour("text"), background_fill_color: null, border_line_color: null,
        orientation: "horizontal", padding: 0, margin: 2,
      });
      // Above what it names, never on it.
      drawn.center = drawn.center.filter((other) => other !== one);
      drawn.add_layout(one, "above");
    }
    return plotting.show(drawn, target);
  }

  // A box with a title for readers and screen readers; the picture is drawn into it.
  function box(place, title) {
    const made = document.createElement("div");
    made.className = "chart";
    made.innerHTML = "<h4></h4><div role='img'></div>";
    one("h4", made).textContent = title;
    one("div", made).setAttribute("aria-label", title);
    place.append(made);
    return one("div", made);
  }

  async function drawSamples(place) {
    const [plotting, found] = await Promise.all([library(), data()]);
    place.replaceChildren();
    for (const metric of found.cells[Number(place.dataset.cell)].charts) {
      const title = `${metric.metric} ${metric.regime}, ${metric.points.length} samples, ${metric.unit}`;
      const target = box(place, title);
      const drawn = figure(plotting, { x_axis_label: "s since the first launch" });
      const times = metric.points.map((point) => point[0]);
      const width = Math.max(...times) - Math.min(...times) || 1;
      const ends = [Math.min(...times) - width / 20, Math.max(...times) + width / 20];
      if (metric.low !== null) {
        drawn.quad({ left: [ends[0]], right: [ends[1]], bottom: [metric.low], top: [metric.high],
          color: colour("ours"), alpha: 0.15, line_color: null });
      }
      if (metric.median !== null) {
        drawn.segment({ x0: [ends[0]], x1: [ends[1]], y0: [metric.median], y1: [metric.median],
          color: colour("text") });
      }
      for (const [arm, name, marker] of [[1, "theirs", "square"], [0, "ours", "circle"]]) {
        const points = metric.points.filter((point) => point[4] === arm);
        if (!points.length) continue;
        const many = metric.points.some((point) => point[4] === 1);
        const source = new window.Bokeh.ColumnDataSource({ data: {
          x: points.map((p) => p[0]), y: points.map((p) => p[1]),
          launch: points.map((p) => p[2]), rep: points.map((p) => p[3]),
        } });
        drawn.scatter({ field: "x" }, { field: "y" }, {
          source, marker, size: 6, color: colour(name), alpha: 0.8,
          ...(many ? { legend_label: arm ? "baseline" : "candidate" } : {}),
        });
      }
      drawn.add_tools(new window.Bokeh.HoverTool({ tooltips: [["launch", "@launch"], ["repetition", "@rep"], ["value", "@y"]] }));
      await show(plotting, drawn, target);
    }
    for (const chart of found.cells[Number(place.dataset.cell)].lines) await drawLines(plotting, place, chart);
  }

  async function drawLines(plotting, place, chart) {
    const target = box(place, `${chart.title}, ${chart.unit}`);
    const drawn = figure(plotting, { x_axis_label: chart.x });
    const tints = ["ours", "theirs", "green", "amber", "red", "quiet"];
    chart.lines.forEach(([name, points], n) => {
      const source = new window.Bokeh.ColumnDataSource({ data: {
        x: points.map((p) => p[0]), y: points.map((p) => p[1] ?? NaN), label: points.map((p) => p[2]),
      } });
      const look = { source, color: colour(tints[n % tints.length]) };
      drawn.line({ field: "x" }, { field: "y" }, { ...look, line_width: 1.5 });
      drawn.scatter({ field: "x" }, { field: "y" }, {
        ...look, size: 5, ...(chart.lines.length > 1 ? { legend_label: name } : {}),
      });
    });
    drawn.add_tools(new window.Bokeh.HoverTool({ tooltips: [["", "@label"], ["value", "@y"]] }));
    await show(plotting, drawn, target);
  }

  const shownRows = () => all("#table tbody tr").filter((row) => !row.hidden);

  async function drawSpeeds(name) {
    const place = one("#speed-chart");
    const [plotting, found] = await Promise.all([library(), data()]);
    const metric = found.speeds.find((entry) => entry.metric === name) ?? found.speeds[0];
    if (!metric) return;
    const visible = new Set(shownRows().map((row) => Number(row.dataset.n)));
    const rows = metric.rows.filter((row) => visible.has(row[0]));
    const few = rows.slice(0, 60).reverse();
    const box_ = one(".picture", place);
    box_.replaceChildren();
    one("output", place).textContent = rows.length > few.length
      ? `the first ${few.length} of ${rows.length}: filter for the others` : "";
    if (!few.length) return;
    const labels = few.map((row, n) => `${row[1]}${"\u200b".repeat(n)}`);
    const drawn = figure(plotting, { y_range: labels, height: 60 + 24 * few.length, x_axis_label: metric.unit });
    const sure = few.map((row, n) => [row, labels[n]]).filter(([row]) => row[3] !== null);
    const tint = (row) => colour({ ok: "green", unverified: "ours", noisy: "amber" }[row[5]] ?? "red");
    drawn.segment({ x0: sure.map(([row]) => row[3]), x1: sure.map(([row]) => row[4]),
      y0: sure.map(([, label]) => label), y1: sure.map(([, label]) => label),
      color: sure.map(([row]) => tint(row)), line_width: 3, alpha: 0.5 });
    drawn.scatter(few.map((row) => row[2]), labels, { size: 8, color: few.map(tint) });
    await plotting.show(drawn, box_);
  }

  function speedChart(found) {
    const place = one("#speed-chart");
    if (!place || !found.speeds.length) return one("#speeds")?.remove();
    place.innerHTML = "<p><label>Metric <select></select></label> <output></output></p><div class='picture' role='img' aria-label='medians with intervals'></div>";
    for (const entry of found.speeds) one("select", place).append(new Option(`${entry.metric} (${entry.unit})`, entry.metric));
    const preferred = found.speeds.find((entry) => entry.metric.startsWith("tg")) ?? found.speeds[0];
    one("select", place).value = preferred.metric;
    one("select", place).addEventListener("change", (event) => drawSpeeds(event.target.value));
    new IntersectionObserver((seen, observer) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      drawSpeeds(preferred.metric);
    }).observe(place);
  }

  // One metric over the nights: what counts is a disc, what can't be trusted a cross.
  async function drawNights(place) {
    const [plotting, found] = await Promise.all([library(), data()]);
    const trend = found.nights[Number(place.dataset.trend)];
    place.replaceChildren();
    const missing = trend.missing ? `, ${trend.missing} without a number` : "";
    const target = box(place, `${trend.metric}, ${trend.unit}, ${trend.points.length} nights${missing}`);
    if (!trend.points.length) return;
    const drawn = figure(plotting, { x_axis_type: "datetime" });
    for (const at of trend.moved) {
      drawn.add_layout(new window.Bokeh.Span({ location: at, dimension: "height", line_color: colour("red"), line_dash: "dashed" }));
    }
    for (const [invalid, marker, tint] of [[true, "x", "red"], [false, "circle", "ours"]]) {
      const points = trend.points.filter((point) => (point[4] === "invalid") === invalid);
      const sure = points.filter((point) => point[2] !== null);
      drawn.segment({ x0: sure.map((p) => p[0]), x1: sure.map((p) => p[0]),
        y0: sure.map((p) => p[2]), y1: sure.map((p) => p[3]), color: colour(tint), line_width: 3, alpha: 0.4 });
      const source = new window.Bokeh.ColumnDataSource({ data: {
        x: points.map((p) => p[0]), y: points.map((p) => p[1]),
        trust: points.map((p) => p[4]), run: points.map((p) => p[5]),
      } });
      drawn.scatter({ field: "x" }, { field: "y" }, { source, marker, size: 7, color: colour(tint) });
    }
    drawn.add_tools(new window.Bokeh.HoverTool({ tooltips: [["run", "@run"], ["value", "@y"], ["trust", "@trust"]] }));
    await plotting.show(drawn, target);
  }

  const nights = new IntersectionObserver((seen, observer) => {
    for (const entry of seen.filter((found) => found.isIntersecting)) {
      observer.unobserve(entry.target);
      drawNights(entry.target);
    }
  });
  all(".nights").forEach((place) => nights.observe(place));

  async function fill(cell) {
    const place = one(".detail", cell);
    if (!place.childElementCount) {
      place.innerHTML = (await data()).cells[Number(cell.dataset.n)].html ?? "";
    }
    const charts = one(".charts", place);
    if (charts && !charts.childElementCount) await drawSamples(charts);
  }

  const cells = new Map(all("details.cell").map((cell) => [cell.dataset.n, cell]));
  const lines = all("#table tbody tr").map((row) => [row, row.textContent.toLowerCase()]);

  function filter() {
    const words = one("#words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcomes = new Set(all("#filter [name=outcome]:checked").map((box) => box.value));
    let shown = 0;
    for (const [row, text] of lines) {
      row.hidden = !outcomes.has(row.dataset.outcome) || !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
      cells.get(row.dataset.n).hidden = row.hidden;
    }
    one("#count").textContent = `${shown} of ${lines.length} cells`;
    if (one("#speed-chart .picture")?.childElementCount) drawSpeeds(one("#speed-chart select").value);
  }

  function sort(header, up) {
    const column = Number(header.dataset.column);
    for (const other of all("#table th")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key;
    const rows = lines.map(([row]) => row);
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x !== undefined && y !== undefined) return (x - y) * (up ? 1 : -1);
      if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
      return a.cells[column].textContent.localeCompare(b.cells[column].textContent) * (up ? 1 : -1);
    });
    one("#table tbody").append(...rows);
  }

  // The address says what is shown: `#cell-...` opens a cell, `#words=pixel&sort=-6` is a view.
  function remember() {
    const state = new URLSearchParams();
    const words = one("#words").value.trim();
    const sorted = one("#table th[aria-sort]");
    const hidden = all("#filter [name=outcome]:not(:checked)").map((box) => box.value);
    if (words) state.set("words", words);
    if (hidden.length) state.set("without", hidden.join(","));
    if (sorted) {
      const down = sorted.getAttribute("aria-sort") === "descending";
      state.set("sort", `${down ? "-" : ""}${sorted.dataset.column}`);
    }
    history.replaceState(null, "", `#${state}`);
  }

  function follow() {
    const hash = decodeURIComponent(location.hash.slice(1));
    const place = hash ? document.getElementById(hash) : null;
    if (place?.matches("details.cell")) {
      place.hidden = false;
      place.open = true;
      place.scrollIntoView();
    }
    if (place || !hash.includes("=")) return;
    const state = new URLSearchParams(location.hash.slice(1));
    const without = (state.get("without") ?? "").split(",");
    one("#words").value = state.get("words") ?? "";
    for (const box of all("#filter [name=outcome]")) box.checked = !without.includes(box.value);
    const column = state.get("sort");
    const header = column && one(`#table th[data-column="${CSS.escape(column.replace("-", ""))}"]`);
    if (header) sort(header, !column.startsWith("-"));
    filter();
    one("#cells").scrollIntoView();
  }

  function copying(code) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    });
    code.after(" ", button);
  }

  for (const header of all("#table th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => {
      sort(header, header.getAttribute("aria-sort") !== "ascending");
      remember();
    });
    header.replaceChildren(button);
  }
  if (navigator.clipboard) all("code.copy").forEach(copying);
  for (const cell of cells.values()) {
    cell.addEventListener("toggle", () => cell.open && fill(cell));
    if (cell.open) fill(cell);
  }
  const form = one("#filter");
  if (form) {
    form.hidden = false;
    form.addEventListener("input", () => (filter(), remember()));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }
  const theme = one("#theme");
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      all(".charts[data-cell]").forEach((place) => place.childElementCount && drawSamples(place));
      all(".nights").forEach((place) => place.childElementCount && drawNights(place));
      const metric = one("#speed-chart select");
      if (metric) drawSpeeds(metric.value);
    });
  }
  addEventListener("hashchange", follow);
  follow();
  data().then(speedChart);
})();
