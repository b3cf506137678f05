// Bundles src/widget.tsx, with its styles inside, into the one file that is shipped.
import * as esbuild from "esbuild";

const options = {
  entryPoints: ["src/widget.tsx"],
  outfile: process.env.FLOWKIT_BUNDLE || "../flowkit/flow/static/graph.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  loader: { ".css": "text" },
  alias: { react: "preact/compat", "react-dom": "preact/compat" },
  define: { "process.env.NODE_ENV": '"production"' },
  legalComments: "none",
  logLevel: "warning",
};

if (process.argv.includes("--watch")) await (await esbuild.context(options)).watch();
else await esbuild.build(options);
