// Bundles src/widget.tsx, with its styles inside, into the one file that is shipped.
import { readFile } from "node:fs/promises";
import * as esbuild from "esbuild";

const styles = {
  name: "styles",
  setup: (build) => build.onLoad({ filter: /\.css$/ }, async ({ path }) => {
    const { code } = await esbuild.transform(await readFile(path, "utf8"), { loader: "css", minify: true });
    return { contents: code, loader: "text" };
  }),
};

const options = {
  entryPoints: ["src/widget.tsx"],
  outfile: process.env.FLOWKIT_BUNDLE || "../flowkit/flow/static/graph.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [styles],
  alias: { react: "preact/compat", "react-dom": "preact/compat", "d3-transition": "./src/d3.ts", "d3-color": "./src/d3.ts" },
  define: { "process.env.NODE_ENV": '"production"', "import.meta.env": "true", "import.meta.env.MODE": '"production"' },
  legalComments: "none",
  logLevel: "warning",
};

if (process.argv.includes("--watch")) await (await esbuild.context(options)).watch();
else await esbuild.build(options);
