// xterm.js writes styles into the page, by `<style>` elements and by `style` attributes, which a strict content security
// policy refuses. While a terminal is open, elements are made here: they set the same styles through the CSS object
// model, which the policy allows. So no page of the dashboard needs `unsafe-inline`.

let open = 0;

/** Has it so until the answer is called. */
export function writeStylesAllowed(): () => void {
  open += 1;
  const original = Document.prototype.createElement;
  if (open === 1) {
    const create = (name: string, options?: ElementCreationOptions): HTMLElement =>
      name === "style" ? sheet(original.call(document, "span")) : attributed(original.call(document, name, options));
    document.createElement = create as typeof document.createElement;
  }
  return () => {
    open -= 1;
    // What is left is the prototype's own.
    if (open === 0) delete (document as { createElement?: unknown }).createElement;
  };
}

/** Stands in for a `<style>` element: its text becomes a style sheet of the document. */
function sheet(element: HTMLElement): HTMLElement {
  const rules = new CSSStyleSheet();
  element.hidden = true;
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, rules];
  Object.defineProperty(element, "textContent", { set: (text: string) => rules.replaceSync(text), get: () => "" });
  const leave = element.remove.bind(element);
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== rules);
    leave();
  };
  return element;
}

/** `setAttribute("style", …)` without the attribute. */
function attributed(element: HTMLElement): HTMLElement {
  element.setAttribute = setAttribute;
  return element;
}

function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}
