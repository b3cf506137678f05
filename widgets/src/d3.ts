// Stands for d3-transition and d3-color, which React Flow brings along and this graph has no use for: views glide by
// `glide` in parts.tsx, and nothing fades from colour to colour. They would be a tenth of what is shipped.
import { selection } from "d3-selection";

(selection.prototype as { interrupt?: () => unknown }).interrupt = function (this: unknown) {
  return this;
};

export const interrupt = (): void => undefined;
export const color = (): null => null;
export { color as rgb, color as hsl, color as hcl, color as lab, color as cubehelix };
