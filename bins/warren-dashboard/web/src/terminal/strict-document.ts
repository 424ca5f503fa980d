// xterm.js writes styles into the page, by `<style>` elements and by `style` attributes, which a strict content security
// policy refuses. It takes a document to work with: this one hands out elements that set the same styles through the
// CSS object model, which the policy allows. So no page of the dashboard needs `unsafe-inline`.

export function strictDocument(real: Document): Document {
  const create = (name: string, options?: ElementCreationOptions): HTMLElement =>
    name === "style" ? sheet(real) : attributed(real.createElement(name, options));
  return new Proxy(real, {
    get(target, key) {
      if (key === "createElement") return create;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
    set: (target, key, value) => Reflect.set(target, key, value, target),
  });
}

/** Stands in for a `<style>` element: its text becomes a style sheet of the document. */
function sheet(real: Document): HTMLElement {
  const element = real.createElement("span");
  const rules = new CSSStyleSheet();
  element.hidden = true;
  real.adoptedStyleSheets = [...real.adoptedStyleSheets, rules];
  Object.defineProperty(element, "textContent", { set: (text: string) => rules.replaceSync(text), get: () => "" });
  const leave = element.remove.bind(element);
  element.remove = () => {
    real.adoptedStyleSheets = real.adoptedStyleSheets.filter((other) => other !== rules);
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
