/** What was, what is, and what was undone. Every `do` is one step. */
export class History<T> {
  private past: T[] = [];
  private future: T[] = [];

  constructor(public now: T) {}

  get undoable(): boolean {
    return this.past.length > 0;
  }

  get redoable(): boolean {
    return this.future.length > 0;
  }

  do(next: T): void {
    if (next === this.now) return;
    this.past.push(this.now);
    this.now = next;
    this.future = [];
  }

  undo(): void {
    if (!this.past.length) return;
    this.future.push(this.now);
    this.now = this.past.pop()!;
  }

  redo(): void {
    if (!this.future.length) return;
    this.past.push(this.now);
    this.now = this.future.pop()!;
  }
}
