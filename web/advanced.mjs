// The classic canvas hides a widget by its own `advanced`, ComfyUI's schemas set only the option that Nodes 2.0 reads.
// The node's menu has "Show Advanced" for what is hidden.

/** Hide the advanced widgets of a node until a person asks for them; true if it has any. */
export function hideAdvanced(node) {
  const advanced = (node.widgets ?? []).filter((widget) => widget.options?.advanced)
  for (const widget of advanced) widget.advanced = true
  // The canvas does not draw them, but keeps their room.
  node.getLayoutWidgets = function () {
    return (this.widgets ?? []).filter((widget) => !widget.hidden && (this.showAdvanced || !widget.advanced))
  }
  return advanced.length > 0
}

/** Give a node the height of what it shows; its width stays. */
export function fitHeight(node) {
  node.setSize([node.size[0], node.computeSize()[1]])
}
