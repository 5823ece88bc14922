// The pack's only extension; features live in modules beside it, without side effects of their own.
import { app } from "../../scripts/app.js";
import { fitHeight, hideAdvanced } from "./advanced.js";

app.registerExtension({
  name: "masked_lora",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MLT_") || !hideAdvanced(node)) return;
    fitHeight(node);
    // A node of a saved workflow is given a size afterwards, for everything that it could show.
    requestAnimationFrame(() => { if (!node.showAdvanced) fitHeight(node); });
  },
});
