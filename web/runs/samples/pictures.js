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
