// Gives the modules under test the English texts, as the page gets them from ComfyUI.
import { readFileSync } from "node:fs";
import { useTexts } from "../../web/page/strings.mjs?v=0.1.0";

export const ENGLISH = JSON.parse(readFileSync(new URL("../../locales/en/main.json", import.meta.url)));
useTexts({ en: ENGLISH }, "en");
