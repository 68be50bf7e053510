// Paints what the server sends: pictures, the latent's grid, curves, thumbnails.

let colors = {};

/** Reads the theme's colours; to be called after it has changed. */
export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "field", "ink", "dim", "line", "accent", "value", "reward", "chosen",
    "cell-low", "cell-mid", "cell-high"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim();
  }
  colors.ramp = ramp();
}

/** Colours of shares 0 to 255, as [r, g, b]. */
function ramp() {
  const stops = ["cell-low", "cell-mid", "cell-high"].map((name) => parse(colors[name]));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) ** 0.6 * (stops.length - 1); // small probabilities can be seen
    const low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((c, k) => Math.round(c + (at - low) * (stops[low + 1][k] - c)));
  });
}

function parse(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/** A picture uint8 [height, width, 1 or 3] in its own size; CSS enlarges it. */
export function picture(canvas, { data, shape: [height, width, channels] }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.setProperty("--aspect", width / height);
  }
  const image = new ImageData(width, height);
  for (let i = 0, from = 0; i < width * height; i += 1, from += channels) {
    image.data[4 * i] = data[from];
    image.data[4 * i + 1] = data[channels === 3 ? from + 1 : from];
    image.data[4 * i + 2] = data[channels === 3 ? from + 2 : from];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Variables in rows, classes in columns; drawn classes in gold, held ones in the accent colour. */
export function grid(canvas, { probs, drawn, hold, cursor }) {
  const [rows, columns] = probs.shape;
  const size = Math.max(6, Math.floor(448 / Math.max(rows, columns)));
  fit(canvas, columns * size, rows * size);
  canvas.parentElement.style.setProperty("--grid-aspect", columns / rows);
  const context = canvas.getContext("2d");
  context.fillStyle = colors.back;
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const share = colors.ramp[probs.data[row * columns + column]];
      context.fillStyle = `rgb(${share})`;
      if (column === drawn.data[row]) context.fillStyle = colors.reward;
      if (hold.get(row) === column) context.fillStyle = colors.accent;
      context.fillRect(column * size, row * size, size - 1, size - 1);
    }
    if (hold.has(row)) {
      context.strokeStyle = colors.accent;
      context.strokeRect(0.5, row * size - 0.5, columns * size - 1, size);
    }
  }
  if (cursor) {
    context.strokeStyle = colors.ink;
    context.strokeRect(cursor[1] * size - 0.5, cursor[0] * size - 0.5, size, size);
  }
}

/** A Gaussian latent: its values as a square of cells, three deviations either way. */
export function values(canvas, { data }) {
  const side = Math.ceil(Math.sqrt(data.length)), size = Math.floor(448 / side);
  fit(canvas, side * size, side * size);
  const context = canvas.getContext("2d");
  context.fillStyle = colors.back;
  context.fillRect(0, 0, canvas.width, canvas.height);
  data.forEach((share, i) => {
    context.fillStyle = `rgb(${colors.ramp[share]})`;
    context.fillRect((i % side) * size, Math.floor(i / side) * size, size - 1, size - 1);
  });
}

const LANES = [
  { name: "value", color: "value", at: 1, floor: 0, digits: 2 },
  { name: "expected reward", color: "reward", at: 2, floor: 0, ceiling: 0.5, digits: 2 },
  { name: "discount", color: "chosen", at: 3, floor: 0, ceiling: 1, digits: 3 },
];

/** Value, expected reward and discount of the moments `points` (step to numbers) up to `latest`. */
export function curves(canvas, { points, latest, step, shown }) {
  const ratio = window.devicePixelRatio || 1;
  fit(canvas, Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  const width = canvas.width / ratio, height = canvas.height / ratio / LANES.length;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height * LANES.length);
  const first = Math.max(0, latest - shown);
  const visible = [];
  for (let i = first; i <= latest; i += 1) if (points.has(i)) visible.push(points.get(i));
  const x = (i) => ((i - first) / shown) * (width - 2) + 1;
  LANES.forEach((lane, index) => {
    lane_(context, lane, visible, x, width, index * height, height, points.get(step));
  });
  context.fillStyle = colors.dim;
  context.fillRect(Math.round(x(step)), 0, 1, height * LANES.length);
}

function lane_(context, lane, visible, x, width, top, height, now) {
  const label = 16, bottom = top + height - 6, room = height - label - 8;
  const numbers = visible.map((point) => point[lane.at]).filter((v) => v !== null);
  const low = Math.min(lane.floor, ...numbers);
  const high = Math.max(lane.ceiling ?? low + 0.1, ...numbers);
  const y = (value) => bottom - ((value - low) / (high - low)) * room;
  context.fillStyle = colors.field;
  context.fillRect(0, top + label, width, height - label - 4);
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = colors.dim;
  context.fillText(lane.name, 1, top + 11);
  const value = now?.[lane.at];
  context.textAlign = "right";
  context.fillStyle = colors[lane.color];
  context.fillText(value === null || value === undefined ? "–" : value.toFixed(lane.digits), width - 1, top + 11);
  context.textAlign = "left";
  context.strokeStyle = colors.line;
  context.strokeRect(0, y(0), width, 0);
  context.strokeStyle = colors[lane.color];
  context.lineWidth = 1.6;
  context.beginPath();
  visible.forEach((point, i) => {
    if (point[lane.at] === null) return;
    const joined = i > 0 && visible[i - 1][0] === point[0] - 1;
    context[joined ? "lineTo" : "moveTo"](x(point[0]), y(point[lane.at]));
  });
  context.stroke();
  context.lineWidth = 1;
  if (lane.name !== "expected reward") return;
  context.fillStyle = colors[lane.color];
  for (const point of visible) if (point[4]) context.fillRect(x(point[0]) - 1, bottom - 4, 2, 8);
}

/** A sheet of `count` pictures side by side, one of them marked. */
export function strip(canvas, image, count, marked) {
  const side = 56, gap = 4, from = image.width / count;
  fit(canvas, count * (side + gap) - gap, side);
  canvas.style.width = `${canvas.width}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = from > side;
  context.clearRect(0, 0, canvas.width, side);
  for (let i = 0; i < count; i += 1) {
    context.drawImage(image, i * from, 0, from, image.height, i * (side + gap), 0, side, side);
  }
  if (marked === null) return;
  context.strokeStyle = colors.accent;
  context.lineWidth = 3;
  context.strokeRect(marked * (side + gap) + 1.5, 1.5, side - 3, side - 3);
}

function fit(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
