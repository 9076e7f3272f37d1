import { render } from "preact";
import { App } from "./components/App.tsx";
import { Demo } from "./page/demo.ts";
import { readPageOptions } from "./page/pageOptions.ts";

const demo = new Demo(readPageOptions(location.search, document.baseURI));
render(<App demo={demo} />, document.getElementById("app")!);
void demo.start();
