"use strict";
const chart = document.getElementById("chart"), over = chart.querySelector(".over");
const cursor = document.getElementById("cursor"), chosen = document.getElementById("chosen");
const ticks = document.getElementById("ticks"), grid = document.getElementById("grid"), whole = document.getElementById("whole");
const duration = Math.max(Number(chart.dataset.duration), 1e-6);
let from = 0, to = duration, pressed = null;

const text = ms => to - from < 20 ? (ms * 1000).toFixed(0) + " µs" : to - from < 2000 ? ms.toFixed(1) + " ms" : (ms / 1000).toFixed(3) + " s";
const percent = ms => (ms - from) / (to - from) * 100;
const short = ms => ms < 1000 ? +ms.toFixed(3) + " ms" : +(ms / 1000).toFixed(6) + " s";

// Shows only what is between two moments, in milliseconds.
function zoom(a, b) {
  [from, to] = b - a < duration * 1e-5 ? [0, duration] : [a, b];
  whole.hidden = from === 0 && to === duration;
  for (const plot of chart.querySelectorAll(".plot"))
    plot.setAttribute("viewBox", `${from} 0 ${to - from} ${plot.viewBox.baseVal.height}`);
  for (const mark of chart.querySelectorAll(".strip [data-at]")) {
    // What began before and goes on keeps its name in sight.
    const at = +mark.dataset.at, end = +mark.dataset.end || at, begin = end > from ? Math.max(at, from) : at;
    mark.style.left = percent(begin) + "%";
    if (mark.dataset.end) mark.style.width = percent(end) - percent(begin) + "%";
  }
  const rough = (to - from) / 10, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(digit => digit * power).find(step => step >= rough);
  ticks.replaceChildren(); grid.replaceChildren();
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const label = document.createElement("span"), line = document.createElement("i");
    label.textContent = short(at);
    label.style.left = line.style.left = percent(at) + "%";
    ticks.append(label); grid.append(line);
  }
}

// The moment under the pointer; null beside the plots.
function moment(event) {
  const box = over.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  return share < 0 || share > 1 ? null : from + share * (to - from);
}
function place(element, at, end = at) {
  element.hidden = false;
  element.style.left = percent(at) + "%";
  element.style.width = percent(end) - percent(at) + "%";
}

chart.addEventListener("pointermove", event => {
  const at = moment(event);
  cursor.hidden = at === null;
  if (at === null) return;
  place(cursor, at);
  cursor.style.width = 0;
  cursor.firstChild.textContent = text(at);
  if (pressed !== null) place(chosen, Math.min(pressed, at), Math.max(pressed, at));
});
chart.addEventListener("pointerleave", () => { cursor.hidden = true; });
chart.addEventListener("pointerdown", event => { if (event.button === 0 && event.target !== whole) pressed = moment(event); });
addEventListener("pointerup", event => {
  if (pressed === null) return;
  const at = moment(event), begin = pressed;
  pressed = null;
  chosen.hidden = true;
  if (at !== null && Math.abs(percent(at) - percent(begin)) > 0.7) zoom(Math.min(begin, at), Math.max(begin, at));
});
chart.addEventListener("dblclick", () => zoom(0, duration));
whole.addEventListener("click", () => zoom(0, duration));

const rows = [...document.querySelectorAll("tbody tr")], search = document.getElementById("search");
const boxes = [...document.querySelectorAll(".filter input[type=checkbox]")], output = document.querySelector("output");
function filter() {
  const wanted = new Set(boxes.filter(box => box.checked).map(box => "k-" + box.value)), words = search.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !wanted.has(row.classList[0]) || !row.textContent.toLowerCase().includes(words);
    shown += !row.hidden;
  }
  output.textContent = `${shown} of ${rows.length}`;
}
search.addEventListener("input", filter);
for (const box of boxes) box.addEventListener("change", filter);
filter();

// A row marks its moment in the chart.
for (const row of rows) row.addEventListener("click", () => {
  for (const other of document.querySelectorAll("tr.picked")) other.classList.remove("picked");
  row.classList.add("picked");
  const at = +row.dataset.at;
  if (at < from || at > to) zoom(0, duration);
  place(chosen, at);
  chart.scrollIntoView({ behavior: "smooth" });
});
