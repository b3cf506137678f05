// The one entry: draws a model into an element, in a notebook, a dashboard or a plain page.
import base from "@xyflow/react/dist/base.css";
import { h, render as draw } from "preact";
import { GraphView } from "./graph";
import { Store, type Model } from "./model";
import theme from "./theme.css";
import editing from "./edit/edit.css";

export function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const store = new Store(model);
  const style = document.createElement("style"); // within el: a shadow root does not see the page's
  style.textContent = base + theme + editing;
  const root = document.createElement("div");
  root.className = "flowkit";
  el.append(style, root);
  let back = () => undefined as unknown;
  const end = follow(root, () => (back = hideStill(el)));
  draw(h(GraphView, { store, root }), root);
  return () => {
    end();
    back();
    draw(null, root);
    store.close();
    style.remove();
    root.remove();
  };
}

/** Dark or light as the surroundings are, once there are any, and when they change. */
function follow(root: HTMLElement, attached: () => void): () => void {
  const look = () => {
    const dark = isDark(root);
    const seen = `${dark} ${getComputedStyle(root).getPropertyValue("--fk-ground")}`;
    if (root.dataset.seen === seen) return;
    root.dataset.seen = seen;
    root.classList.toggle("dark", dark);
    root.style.colorScheme = dark ? "dark" : "light";
    root.dispatchEvent(new Event("fk-theme"));
  };
  let later = 0;
  const changed = () => {
    look();
    clearTimeout(later);
    later = window.setTimeout(look, 250); // a theme's style sheet may arrive after its name
  };
  look();
  // A notebook calls us before it puts the element into the page, where alone it has colours and neighbours.
  const arrival = new ResizeObserver(() => {
    if (!root.isConnected) return;
    arrival.disconnect();
    attached();
    look();
  });
  arrival.observe(root);
  const observer = new MutationObserver(changed);
  for (const element of [document.documentElement, document.body]) observer.observe(element, { attributes: true });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", changed);
  return () => {
    observer.disconnect();
    arrival.disconnect();
    system.removeEventListener("change", changed);
    clearTimeout(later);
  };
}

function isDark(root: HTMLElement): boolean {
  const around = root.parentElement ?? root; // not within: what is asked is what surrounds us, whatever we have become
  const styles = getComputedStyle(around);
  for (const name of ["--jp-layout-color1", "--vscode-editor-background", "--panel-background-color"]) {
    const value = styles.getPropertyValue(name).trim();
    if (!value) continue;
    const probe = document.createElement("i");
    probe.style.color = value;
    around.append(probe);
    const [red = 255, green = 255, blue = 255] = (getComputedStyle(probe).color.match(/[\d.]+/g) ?? []).map(Number);
    probe.remove();
    return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
  }
  const scheme = styles.colorScheme;
  if (scheme.includes("light") && scheme.includes("dark")) return matchMedia("(prefers-color-scheme: dark)").matches;
  return scheme.includes("dark");
}

/** The still picture above a live one says the same: hidden for as long as this one lives. */
function hideStill(el: HTMLElement): () => void {
  let at: HTMLElement | null = el;
  for (let up = 0; at && up < 12; up++, at = at.parentElement) {
    const before = at.previousElementSibling;
    if (!(before instanceof HTMLElement) || !before.querySelector("svg[data-flowkit]")) continue;
    before.style.display = "none";
    return () => (before.style.display = "");
  }
  return () => undefined;
}

export default { render };
