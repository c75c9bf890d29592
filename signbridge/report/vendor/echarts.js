// The parts of Apache ECharts that the charts of a page use; README.md says how echarts.min.js is made of it.
import { init, use } from "echarts/core";
import { BarChart, CustomChart, HeatmapChart, LineChart, ScatterChart } from "echarts/charts";
import {
  DataZoomInsideComponent, GridComponent, LegendComponent, MarkLineComponent, TooltipComponent,
  VisualMapContinuousComponent,
} from "echarts/components";
import { LabelLayout, UniversalTransition } from "echarts/features";
import { CanvasRenderer } from "echarts/renderers";

use([
  BarChart, CustomChart, HeatmapChart, LineChart, ScatterChart, DataZoomInsideComponent,
  GridComponent, LegendComponent, MarkLineComponent, TooltipComponent,
  VisualMapContinuousComponent, LabelLayout, UniversalTransition, CanvasRenderer,
]);
export { init };
