HELP = "the main job on simulated scans: three scanners, one labelled; some minutes on two CPU cores"
EXAMPLE = """  nnunet-da demo
  nnunet-da demo -o DEMO --keep      # keeps data, models and logs in DEMO/work"""


def add_arguments(parser):
    parser.add_argument("-o", dest="output", default="nnunet_da_demo", help="default: %(default)s")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu", help="default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="keep data, models and logs")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(arguments):
    from nnunet_da.demo.pipeline import run_demo

    run_demo(arguments.output, arguments.device, arguments.keep, seed=arguments.seed)
