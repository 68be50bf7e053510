// Keys, touch and gamepads: which action is held down.

const KEYS = { ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE" };
export const SIGNS = { UP: "▲", DOWN: "▼", LEFT: "◀", RIGHT: "▶", FIRE: "space" };
const STICK = 0.4; // how far a gamepad's stick must be moved

/** Calls `changed(action)` whenever another action is held: an index, numbers, or null for none. */
export class Controls {
  constructor({ discrete, size, buttons }, changed) {
    this.discrete = discrete;
    this.size = size;
    this.buttons = buttons;
    this.changed = changed;
    this.down = { keys: new Set(), touch: new Set(), pad: new Set() };
    this.names = new Map(); // place of a key that is down -> the name that it had when it went down
    this.direct = null; // an action that is pressed by its name
    this.numbers = null; // of a continuous action, by its sliders
    this.last = "null";
    const used = discrete ? buttons.flat() : ["LEFT", "RIGHT", ...(size > 1 ? ["UP", "DOWN"] : [])];
    this.used = ["LEFT", "UP", "DOWN", "RIGHT", "FIRE"].filter((name) => used.includes(name));
    window.addEventListener("blur", () => this.clear());
  }

  /** Whether the key that goes down belongs to the game; takes note of it. */
  keyDown({ key, code }) {
    // While it is down, Shift can give it another name: the digits of French keyboards need Shift.
    const place = code || key, name = this.names.get(place) ?? key;
    if (!this.key(name, true)) return false;
    this.names.set(place, name);
    return true;
  }

  keyUp({ key, code }) {
    const place = code || key;
    this.key(this.names.get(place) ?? key, false);
    this.names.delete(place);
  }

  key(name, isDown) {
    const button = KEYS[name];
    if (button && this.used.includes(button)) {
      this.press("keys", button, isDown);
      return true;
    }
    const digit = /^[1-9]$/.test(name) ? Number(name) - 1 : -1;
    if (this.discrete && digit >= 0 && digit < this.size) {
      if (isDown) this.hold(digit);
      else this.release(digit);
      return true;
    }
    return false;
  }

  press(source, button, isDown) {
    this.down[source][isDown ? "add" : "delete"](button);
    this.tell();
  }

  /** Holds an action by its index. */
  hold(action) {
    this.direct = action;
    this.tell();
  }

  /** Lets an action go, unless another one is held by now. */
  release(action) {
    if (this.direct === action) this.direct = null;
    this.tell();
  }

  /** Sets one number of a continuous action. */
  slide(index, value) {
    this.numbers ??= new Array(this.size).fill(0);
    this.numbers[index] = value;
    this.tell();
  }

  clear() {
    for (const set of Object.values(this.down)) set.clear();
    this.names.clear();
    this.direct = null;
    this.tell();
  }

  /** To be called regularly: gamepads have no events for their sticks. */
  poll() {
    const held = new Set();
    for (const pad of navigator.getGamepads?.() ?? []) {
      if (!pad) continue;
      const pressed = (i) => pad.buttons[i]?.pressed;
      if (pad.axes[0] < -STICK || pressed(14)) held.add("LEFT");
      if (pad.axes[0] > STICK || pressed(15)) held.add("RIGHT");
      if (pad.axes[1] < -STICK || pressed(12)) held.add("UP");
      if (pad.axes[1] > STICK || pressed(13)) held.add("DOWN");
      if ([0, 1, 2, 3].some(pressed)) held.add("FIRE");
    }
    this.down.pad = held;
    this.tell();
  }

  tell() {
    const action = this.action(), text = JSON.stringify(action);
    if (text === this.last) return;
    this.last = text;
    this.changed(action);
  }

  action() {
    const { keys, touch, pad } = this.down;
    const pressed = new Set([...keys, ...touch, ...pad]);
    if (!this.discrete) return this.continuous(pressed);
    if (this.direct !== null) return this.direct;
    let best = null;
    this.buttons.forEach((needed, index) => {
      const fits = needed.length > 0 && needed.every((button) => pressed.has(button));
      if (fits && (best === null || needed.length > this.buttons[best].length)) best = index;
    });
    return best;
  }

  continuous(pressed) {
    if (pressed.size === 0) return this.numbers;
    const numbers = this.numbers ? [...this.numbers] : new Array(this.size).fill(0);
    const axis = (more, less) => Number(pressed.has(more)) - Number(pressed.has(less));
    numbers[0] = axis("RIGHT", "LEFT") || numbers[0];
    if (this.size > 1) numbers[1] = axis("UP", "DOWN") || numbers[1];
    return numbers;
  }

  /** Fills an element with keys to touch. */
  buildPad(element) {
    element.replaceChildren(...this.used.map((name) => {
      const button = document.createElement("button");
      button.textContent = name === "FIRE" ? "●" : SIGNS[name];
      button.className = name.toLowerCase();
      button.setAttribute("aria-label", name.toLowerCase());
      whilePressed(button, (isDown) => {
        button.dataset.down = isDown;
        this.press("touch", name, isDown);
      });
      return button;
    }));
  }
}

/** Calls `told(true)` when a pointer, Enter or Space goes down on the element, and `told(false)` when
    it is gone. */
export function whilePressed(element, told) {
  element.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    element.setPointerCapture(event.pointerId);
    told(true);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
    element.addEventListener(name, () => told(false));
  }
  for (const name of ["keydown", "keyup"]) {
    element.addEventListener(name, (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      told(name === "keydown");
    });
  }
  element.addEventListener("contextmenu", (event) => event.preventDefault());
}
