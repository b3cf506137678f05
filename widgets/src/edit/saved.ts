// Where a draft waits that is not written yet, while its editor or its page is gone: in the kernel, with the widget, and
// in the browser, for when the kernel has gone too.
import type { Draft, Store } from "../model";

export interface Saved {
  draft: Draft;
  seen: string; // the notebook's flow when it was begun
}

const key = (store: Store) => `flowkit draft ${store.run.notebook ?? ""} ${store.graph.flow}`;

export function saved(store: Store): Saved | null {
  let found = store.get<Saved>("draft") ?? null;
  try {
    found ??= JSON.parse(localStorage.getItem(key(store))!) as Saved | null;
  } catch { /* a frame that may keep nothing, or something that is not ours */ }
  return Array.isArray(found?.draft?.nodes) ? found : null;
}

export function save(store: Store, what: Saved | null): void {
  store.put("draft", what ?? {});
  try {
    if (what) localStorage.setItem(key(store), JSON.stringify(what));
    else localStorage.removeItem(key(store));
  } catch { /* as above, or there is no room */ }
}
