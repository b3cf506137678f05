// What a widget cannot do in JupyterLab and Notebook 7: write into a cell. The graph's editor sends the event
// `flowkit:write-below` from where it stands, and takes its being prevented for an answer.
//
// This is by hand what JupyterLab's builder would make of a module that needs nothing of the others: `init` would be
// given what they share, `get` gives the plugin.
(() => {
  const written = new WeakMap(); // cell -> the text it was given here

  function write(app, event) {
    const path = event.composedPath();
    for (const panel of app.shell.widgets("main")) {
      const notebook = panel.content;
      const model = notebook?.model?.sharedModel;
      const at = path.includes(panel.node) && model && !notebook.model.readOnly ? notebook.widgets.findIndex((cell) => path.includes(cell.node)) : -1;
      if (at < 0) continue;
      let cell = model.cells[at + 1];
      const text = cell?.cell_type === "code" ? cell.getSource() : null;
      // What somebody wrote stays: only a cell of ours, as we left it, is written anew.
      if (text !== null && (text.trim() === "" || text === written.get(cell))) cell.setSource(event.detail.text);
      else cell = model.insertCell(at + 1, { cell_type: "code", source: event.detail.text, metadata: {} });
      written.set(cell, event.detail.text);
      notebook.activeCellIndex = at + 1;
      event.preventDefault();
      return;
    }
  }

  const plugin = {
    id: "flowkit:write-below",
    autoStart: true,
    activate: (app) => document.addEventListener("flowkit:write-below", (event) => write(app, event)),
  };
  (window._JUPYTERLAB ??= {}).flowkit = { init: () => undefined, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
