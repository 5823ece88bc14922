// The pack's only extension; features live in modules beside it, without side effects of their own.
import { app } from "../../scripts/app.js";

app.registerExtension({ name: "masked_lora" });
