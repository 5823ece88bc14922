// Which sample picture is shown. Pure functions.

/** The prompts that have a picture: [{number, prompt}]. */
export function prompts(list) {
  const all = (list?.prompts ?? []).map((prompt, number) => ({ number, prompt }));
  const drawn = new Set((list?.steps ?? []).flatMap((one) => one.numbers));
  return all.filter((one) => drawn.has(one.number));
}

/** The steps with a picture of a prompt, oldest first. */
export function stepsOf(list, number) {
  return (list?.steps ?? []).filter((one) => one.numbers.includes(number)).map((one) => one.step);
}

/**
 * The step to show of `steps`: the wanted one, else the one before it, else the first.
 * @param {number|null} wanted null for always the newest.
 */
export function stepToShow(steps, wanted) {
  if (!steps.length) return null;
  if (wanted === null) return steps[steps.length - 1];
  return steps.findLast((step) => step <= wanted) ?? steps[0];
}

/** The strength at which a training draws its pictures. */
export const FULL = "1.00";

/** The strengths of a LoRA at which there are pictures, weakest first: ["0.60", "1.00"]. */
export function strengths(list) {
  const full = (list?.steps ?? []).some(({ step }) => step > 0) ? [FULL] : [];
  return [...Object.keys(list?.strengths ?? {}), ...full].sort((a, b) => Number(a) - Number(b));
}

/** The strength to show of those at which there are pictures: the wanted one, else the training's, else the strongest. */
export function strengthToShow(list, wanted) {
  const all = strengths(list);
  return [wanted, FULL, all.at(-1)].find((one) => all.includes(one)) ?? FULL;
}

/** The list with the steps of a strength; the base model's pictures belong to each. */
export function atStrength(list, strength) {
  if (!list || strength === FULL) return list;
  const base = list.steps.filter(({ step }) => step === 0);
  return { ...list, steps: [...base, ...(list.strengths[strength] ?? [])] };
}

/** What tells a picture's address apart. Drawn anew for other prompts or settings, that of the same step is another one. */
export function query(list, step, strength) {
  return `?look=${list.look}${step && strength !== FULL ? `&strength=${strength}` : ""}`;
}

/** A step as it is named beside pictures of other strengths. */
export function toldStep(step, strength) {
  return strength === FULL ? `${step}` : `${step} × ${strength}`;
}
