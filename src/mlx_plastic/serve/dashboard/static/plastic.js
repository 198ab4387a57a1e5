// Plots and the progress of a running night; every page also works without this.
"use strict";

const WHOLE = [1, 2, 5].flatMap((n) => [1, 10, 100, 1e3, 1e4, 1e5].map((ten) => n * ten)).sort((a, b) => a - b);

function plot(element, title, data, time) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--text").trim();
  const line = style.getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: line }, ticks: { stroke: line } };
  const colours = ["--accent", "--good", "--bad"].map((name) => style.getPropertyValue(name).trim());
  const series = data.names.map((name, i) => ({
    label: name, stroke: colours[i % colours.length], width: 2, points: { show: true, size: 6 }, spanGaps: true,
  }));
  new uPlot({
    title: title, width: Math.min(element.clientWidth || 600, 900), height: 220,
    scales: { x: { time: time } }, axes: [time ? axis : { ...axis, incrs: WHOLE }, axis], series: [{ label: time ? "when" : "step" }, ...series],
  }, [data.x, ...data.y], element);
}

function drawTrends(root) {
  for (const one of JSON.parse(root.dataset.series)) {
    const element = document.createElement("div");
    element.className = "plot";
    root.appendChild(element);
    plot(element, one.name, { x: one.x, y: [one.y], names: [one.name] }, true);
  }
}

function drawLoss(element) {
  const columns = JSON.parse(element.dataset.loss);
  const names = Object.keys(columns).filter((name) => name !== "step" && columns[name].some((v) => v !== null));
  const x = columns.step || columns[names[0]].map((_, i) => i);
  plot(element, "", { x: x, y: names.map((name) => columns[name]), names: names }, false);
}

function follow(element) {
  const source = new EventSource(element.dataset.live);
  let first = true;
  source.addEventListener("nights", (event) => {
    const running = JSON.parse(event.data).filter((night) => night.status === "running");
    element.textContent = running.map((n) => `night ${n.tag} is running; done: ${n.stages.join(", ") || "nothing yet"}`).join("; ");
    if (!first && running.length === 0) { location.reload(); }
    first = false;
  });
  addEventListener("pagehide", () => source.close());
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("#trends").forEach(drawTrends);
  document.querySelectorAll("[data-loss]").forEach(drawLoss);
  document.querySelectorAll("[data-live]").forEach(follow);
});
