import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/parts.css";
import { render } from "preact";
import { App } from "./app";
import * as live from "./live";
import * as router from "./router";
import { restore } from "./session";
import { applyTheme } from "./theme";

applyTheme();
router.start();
live.start();
void restore();
const place = document.getElementById("app");
if (place) render(<App />, place);
