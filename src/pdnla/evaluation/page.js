"use strict";

function badness(better, number) {
  return better === "up" ? -number : better === "down" ? number : Math.abs(number - 1);
}

for (const section of document.querySelectorAll("section:has(.rows)")) {
  const data = JSON.parse(section.querySelector(".data").textContent);
  const rows = section.querySelector(".rows");
  const inOrder = [...rows.children];
  const { order, measure, method } = section.querySelector("form").elements;
  const value = (row, name) => data.figures[row.dataset.number][name]?.[measure.value];

  function arrange() {
    const direction = Number(order.value);
    const { better, digits } = data.measures[measure.value];
    const sorted = [...inOrder];
    if (direction) {
      const key = (row) => {
        const number = value(row, method.value);
        return number === undefined ? -Infinity : direction * badness(better, number); // without a figure: last
      };
      sorted.sort((a, b) => key(b) - key(a) || 0);
    }
    rows.replaceChildren(...sorted);
    for (const figure of rows.querySelectorAll("figure:has(button)")) {
      const number = value(figure.closest("article"), figure.querySelector("button").dataset.name);
      figure.querySelector("b").textContent = number === undefined ? "" : number.toFixed(digits);
    }
  }
  for (const control of [order, measure, method]) control.addEventListener("change", arrange);
  arrange();
  rows.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(button.closest("article"), button.dataset.name);
  });
}

const viewer = document.getElementById("viewer");
const stage = viewer.querySelector(".stage");
const [left, right] = viewer.querySelectorAll("select");
const pictures = stage.querySelectorAll("img");
const range = viewer.querySelector("input");
let shown;

const picture = (name) => [...shown.querySelectorAll("button")].find((button) => button.dataset.name === name);

function show() {
  [left, right].forEach((select, side) => (pictures[side].src = picture(select.value).firstChild.src));
}

function cut(part) {
  range.value = 1000 * part;
  stage.style.setProperty("--cut", `${100 * part}%`);
}

function open(row, name) {
  shown = row;
  const names = [...row.querySelectorAll("button")].map((button) => button.dataset.name);
  for (const select of [left, right]) select.replaceChildren(...names.map((each) => new Option(each)));
  left.value = "target";
  right.value = names.includes(name) ? name : names[0];
  const target = picture("target").firstChild;
  stage.style.setProperty("--ratio", target.naturalHeight / target.naturalWidth || 1);
  viewer.querySelector("h3").textContent = row.querySelector("h3").textContent;
  cut(0.5);
  show();
  if (!viewer.open) viewer.showModal();
}

range.addEventListener("input", () => cut(range.value / 1000));
for (const select of [left, right]) select.addEventListener("change", show);
for (const kind of ["pointerdown", "pointermove"]) {
  stage.addEventListener(kind, (event) => {
    if (kind === "pointermove" && !event.buttons && event.pointerType !== "mouse") return;
    const box = stage.getBoundingClientRect();
    cut(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    event.preventDefault();
  });
}
viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
viewer.addEventListener("keydown", (event) => {
  const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!next || event.target.tagName === "SELECT") return;
  event.preventDefault();
  if (shown[next]) open(shown[next], right.value);
});
